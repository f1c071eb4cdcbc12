"""The part of a plan that says how a decode kernel is launched: tiles, warps and stages.

These constants belong together. What one of them does depends on the others, and whether a GPU has
the shared memory for them depends on all.
"""

__all__ = ["LAUNCH_KNOBS", "launch_of", "without_launch"]

from mla_tune.plan.plan import UNTUNED, Plan

LAUNCH_KNOBS = ("block_n", "block_h", "num_warps", "num_stages")
"""The knobs that are constants of a kernel's launch."""


def launch_of(plan: Plan) -> Plan:
    """The launch constants of ``plan`` alone; empty where the launch is vLLM's own.

    Example:
        >>> launch_of(Plan(num_kv_splits=2, block_n=64, num_stages=1))
        Plan(block_n=64, num_stages=1)
    """
    return Plan(**{knob: plan[knob] for knob in LAUNCH_KNOBS if knob in plan}) or UNTUNED


def without_launch(plan: Plan) -> Plan:
    """``plan`` with vLLM's own launch."""
    return plan.without(*LAUNCH_KNOBS)
