"""Standard output and errors as they may be: in ASCII or Latin-1, on a full disk, or closed."""

__all__ = ["StandardStream", "standard_streams"]

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO, cast

# What stands for the signs used here where an encoding lacks them.
PLAIN = {"×": "x", "µ": "u", "–": "-", "−": "-", "…": "...", "→": "->"}


class StandardStream:
    """A text stream that can always be written to.

    Characters that the encoding lacks are shown by others. After a first error of the disk all
    further text is dropped and the error kept in `failure`: a night's run must not end because
    its log is full. A closed pipe is no error of a disk: BrokenPipeError passes on, once.

    Args:
        stream: where the text goes.
        failed: told of the first error.
    """

    def __init__(self, stream: TextIO, failed: Callable[[OSError], None]) -> None:
        self._stream = stream
        self._failed = failed
        self.failure: OSError | None = None

    @property
    def buffer(self) -> io.RawIOBase:
        """Takes UTF-8: click writes it there for a shell, and where the encoding is ASCII."""
        return _Utf8(self)

    def write(self, text: str) -> int:
        """As a text stream's own."""
        self._try(lambda: self._stream.write(_encodable(text, self._stream.encoding or "utf-8")))
        return len(text)

    def flush(self) -> None:
        """As a text stream's own."""
        self._try(self._stream.flush)

    def _try(self, call: Callable[[], object]) -> None:
        if self.failure is not None:
            return
        try:
            call()
        except OSError as error:
            self.failure = error
            # What is still buffered would fail again, with a traceback, when Python ends.
            with contextlib.suppress(OSError), Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
            if isinstance(error, BrokenPipeError):
                raise
            self._failed(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Utf8(io.RawIOBase):
    """Bytes of UTF-8 on their way to a stream of text; each write is of whole characters."""

    def __init__(self, stream: StandardStream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._stream.write(bytes(data).decode())
        return len(data)

    def flush(self) -> None:
        self._stream.flush()


def _encodable(text: str, encoding: str) -> str:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(_shown(character, encoding) for character in text)
    return text


def _shown(character: str, encoding: str) -> str:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        escaped = character.encode("ascii", "backslashreplace").decode("ascii")
        return PLAIN.get(character, escaped)
    return character


@contextlib.contextmanager
def standard_streams() -> Iterator[StandardStream]:
    """Put a `StandardStream` in the place of standard output and of errors; yields the output's.

    The first error of the output is told on the other one.
    """
    with contextlib.ExitStack() as stack:
        # Python has None where the shell closed a stream (`>&-`).
        closed = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        errors = StandardStream(sys.stderr or closed, lambda _error: None)

        def told(error: OSError) -> None:
            what = error.strerror or error
            errors.write(f"mla-tune: standard output cannot be written: {what}\n")
            errors.flush()

        output = StandardStream(sys.stdout or closed, told)
        stack.enter_context(contextlib.redirect_stdout(cast("TextIO", output)))
        stack.enter_context(contextlib.redirect_stderr(cast("TextIO", errors)))
        yield output
