"""A process that a start waits for: it answers once, and ends with its parent."""

__all__ = ["answer_parent"]

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence


def answer_parent(arguments: Sequence[str], answer: Callable[[str], str]) -> None:
    """Answer a request; end on SIGINT, and when the parent's end of the standard input closes.

    Args:
        arguments: the number of a file descriptor, which the answer goes to, and the request.
        answer: makes the one of the other.
    """
    # A shell's job in the background ignores it, and so would this process.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    file, request = arguments
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        os.write(int(file), answer(request).encode())
    except KeyboardInterrupt:
        sys.exit(130)


def _end_with_parent() -> None:
    # Not by sys.stdin, which Python wants to lock when it ends.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)
