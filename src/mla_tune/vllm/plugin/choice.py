"""What a table says about one step."""

__all__ = ["VLLM_OWN", "Choice"]

import math
from dataclasses import dataclass, field

from mla_tune.plan.plan import UNTUNED, Plan


@dataclass(eq=False, slots=True)
class Choice:
    """The plan for one kind of step, looked up once and then reused.

    Attributes:
        shape: the batch the choice was looked up for, as a batch spec.
        outcome: ``hit``, ``miss``, ``skewed`` (a miss, because one request is longer than the
            others than a uniform entry's gain covers) or ``mixed`` (several kinds of requests).
        plan: empty on anything but a hit; what it leaves open stays as vLLM has it.
        reason: for the log, on anything but a hit.
        longest_kv: the longest KV length measured for the entry; graph mode only, where the
            choice cannot follow the real lengths.
        most_skew: how many times the mean KV length the longest may be for the plan to be no slower
            than the default; eager mode only.
        checked: whether what reached the kernel has been compared with the plan.
    """

    shape: str
    outcome: str
    plan: Plan = UNTUNED
    reason: str = ""
    longest_kv: int | None = None
    most_skew: float = math.inf
    checked: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if not self.plan:
            self.checked = True


# For steps without attention of ours to choose for, and after a failure in our code.
VLLM_OWN = Choice("any", "mixed")
