"""Whether a value really reached the kernel, seen from the call that launches it."""

__all__ = ["seen_argument", "verified"]

import logging
from collections.abc import Callable
from typing import Any

from mla_tune.vllm.log import logger
from mla_tune.vllm.observe import calls_of
from mla_tune.vllm.plugin.choice import Choice
from mla_tune.vllm.plugin.counts import Counts
from mla_tune.vllm.plugin.state import once


def seen_argument(
    owner: Any, function: str, argument: str, run: Callable[[], Any]
) -> tuple[Any, Any]:
    """Run ``run`` and note what ``owner.function`` is given for ``argument`` meanwhile.

    Returns the result of ``run``, and the argument (None when the function was not called).
    """
    with calls_of(owner, function, argument) as seen:
        result = run()
    return result, seen[0] if seen else None


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
