"""Whether a plan really reached the kernel, seen from the call that launches it."""

__all__ = ["ChecksSplits", "checked_by_impl", "verified"]

import logging
from typing import Any

from mla_tune.vllm.log import logger
from mla_tune.vllm.observe import calls_of
from mla_tune.vllm.plugin.choice import Choice
from mla_tune.vllm.plugin.counts import Counts
from mla_tune.vllm.plugin.fields import Fields
from mla_tune.vllm.plugin.state import once


def checked_by_impl(choice: Choice, counts: Counts) -> Fields:
    """The field of a step's metadata that tells `ChecksSplits` what the step was chosen for."""
    return (("mla_tune", (choice, counts)),)


class ChecksSplits:
    """Mixin for an impl of vLLM whose kernel takes a split count; it comes before vLLM's class.

    The first launch for a choice is watched, and what the kernel is given is compared with what
    the table says.
    """

    def split_argument(self) -> tuple[Any, str, str]:
        """The owner and the name of the function that launches the kernel, and its argument."""
        raise NotImplementedError

    def forward_mqa(
        self, q: Any, kv_c_and_k_pe_cache: Any, attn_metadata: Any, layer: Any, *args: Any
    ) -> Any:
        arguments = (q, kv_c_and_k_pe_cache, attn_metadata, layer, *args)
        tuned = getattr(attn_metadata, "mla_tune", None)
        if tuned is None or tuned[0].checked or "num_kv_splits" not in tuned[0].plan:
            return super().forward_mqa(*arguments)  # type: ignore[misc]
        choice, counts = tuned
        with calls_of(*self.split_argument()) as seen:
            result = super().forward_mqa(*arguments)  # type: ignore[misc]
        wanted = choice.plan["num_kv_splits"]
        verified(choice, "num_kv_splits", wanted, seen[0] if seen else None, counts)
        return result


def verified(choice: Choice, knob: str, wanted: Any, seen: Any, counts: Counts) -> None:
    """Compare what a kernel got with what the table says, and say so if they differ."""
    choice.checked = True
    if seen == wanted:
        counts.verified += 1
        if counts.verified == 1:
            logger.info(
                "mla-tune: %s: %s=%s reached the kernel for %s",
                counts.backend,
                knob,
                wanted,
                choice.shape,
            )
        return
    counts.not_applied += 1
    once(
        logging.WARNING,
        f"mla-tune: {counts.backend}: the table says {knob}={wanted} for {choice.shape}, but the "
        f"kernel got {seen}; please report it with the vLLM release",
    )
