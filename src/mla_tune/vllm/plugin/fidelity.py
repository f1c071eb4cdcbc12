"""Whether a plan really reached the kernel, seen from the call that launches it."""

__all__ = ["ChecksSplits", "at_the_launch", "checked_by_impl", "verified"]

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from mla_tune.plan.launch import launch_of
from mla_tune.plan.plan import Plan
from mla_tune.vllm.log import logger
from mla_tune.vllm.observe import calls_of
from mla_tune.vllm.plugin.choice import Choice
from mla_tune.vllm.plugin.counts import Counts
from mla_tune.vllm.plugin.fields import Fields
from mla_tune.vllm.plugin.state import once

SPLITS = "num_kv_splits"


def checked_by_impl(choice: Choice, counts: Counts) -> Fields:
    """The field of a step's metadata that tells `ChecksSplits` what the step was chosen for."""
    return (("mla_tune", (choice, counts)),)


def at_the_launch(plan: Plan) -> Plan:
    """The part of ``plan`` that is seen where the decode kernel is launched."""
    splits = plan.number(SPLITS)
    return launch_of(plan) if splits is None else launch_of(plan).having(num_kv_splits=splits)


class ChecksSplits:
    """Mixin for an impl of vLLM whose kernel takes a split count; it comes before vLLM's class.

    The first launch for a choice is watched, and what the kernel is given is compared with what
    the table says.
    """

    def split_argument(self) -> tuple[Any, str, str]:
        """The owner and the name of the function that launches the kernel, and its argument."""
        raise NotImplementedError

    def launches_observed(self) -> AbstractContextManager[list[Plan]]:
        """Collects the constants of the kernel's launches, where they can be set."""
        return nullcontext([])

    def forward_mqa(
        self, q: Any, kv_c_and_k_pe_cache: Any, attn_metadata: Any, layer: Any, *args: Any
    ) -> Any:
        arguments = (q, kv_c_and_k_pe_cache, attn_metadata, layer, *args)
        tuned = getattr(attn_metadata, "mla_tune", None)
        if tuned is None or tuned[0].checked or not (wanted := at_the_launch(tuned[0].plan)):
            return super().forward_mqa(*arguments)  # type: ignore[misc]
        choice, counts = tuned
        with calls_of(*self.split_argument()) as splits, self.launches_observed() as launches:
            result = super().forward_mqa(*arguments)  # type: ignore[misc]
        seen = {SPLITS: splits[0]} if splits else {}
        for launch in launches[:1]:
            seen |= launch
        verified(choice, wanted, seen, counts)
        return result


def verified(
    choice: Choice, wanted: Mapping[str, Any], seen: Mapping[str, Any], counts: Counts
) -> None:
    """Compare what a kernel got with what the table says, and say so if they differ."""
    choice.checked = True
    missed = {name: value for name, value in wanted.items() if seen.get(name) != value}
    if not missed:
        counts.verified += 1
        if counts.verified == 1:
            reached = _named(wanted)
            logger.info(
                "mla-tune: %s: %s reached the kernel for %s", counts.backend, reached, choice.shape
            )
        return
    counts.not_applied += 1
    got = ", ".join(str(seen.get(name)) for name in missed)
    once(
        logging.WARNING,
        f"mla-tune: {counts.backend}: the table says {_named(missed)} for {choice.shape}, but the "
        f"kernel got {got}; please report it with the vLLM release",
    )


def _named(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())
