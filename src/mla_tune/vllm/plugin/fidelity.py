"""Whether a value really reached the kernel, seen from the call that launches it."""

__all__ = ["seen_argument", "verified"]

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

from mla_tune.vllm.log import logger, once
from mla_tune.vllm.plugin.choice import Choice
from mla_tune.vllm.plugin.counts import Counts


def seen_argument(
    owner: Any, function: str, argument: str, run: Callable[[], Any]
) -> tuple[Any, Any]:
    """Run ``run`` and note what ``owner.function`` is given for ``argument`` meanwhile.

    Returns the result of ``run``, and the argument (None when the function was not called).
    """
    # There is no official way to observe a launch; the name is put back before this returns, and
    # each choice is observed once.
    original = getattr(owner, function)
    was_own = function in vars(owner)
    parameters = inspect.signature(original)
    seen: list[Any] = []

    @functools.wraps(original)
    def watching(*args: Any, **kwargs: Any) -> Any:
        bound = parameters.bind(*args, **kwargs)
        bound.apply_defaults()
        # A wrapper declared with **kwargs binds its keyword under that name.
        seen.append(bound.arguments.get(argument, kwargs.get(argument)))
        return original(*args, **kwargs)

    setattr(owner, function, watching)
    try:
        result = run()
    finally:
        if was_own:
            setattr(owner, function, original)
        else:
            delattr(owner, function)
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
