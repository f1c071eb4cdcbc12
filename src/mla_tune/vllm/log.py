"""Messages in vLLM's log, each said once a process."""

__all__ = ["logger", "once"]

import logging

from mla_tune.printable import printable

# Below "vllm", or vLLM's handlers and its VLLM_LOGGING_LEVEL would not apply.
logger = logging.getLogger("vllm.mla_tune")

_said: set[str] = set()


def once(level: int, message: str, *, exc_info: BaseException | None = None) -> None:
    """Log ``message``, unless this process has already said it."""
    message = printable(message)
    if message not in _said:
        _said.add(message)
        logger.log(level, message, exc_info=exc_info)
