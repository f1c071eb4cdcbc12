"""The file that a run records to: a new one, or one that goes on where an earlier run left it."""

__all__ = ["RecordingFile"]

import errno
import fcntl
import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mla_tune.environment import Environment
from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.files.atomic_write import fresh_beside
from mla_tune.files.own_file import open_own
from mla_tune.measuring.recording.content import FORMAT, Recording
from mla_tune.measuring.recording.stream import LineStream

# Whatever else keeps a file from being opened lies in the path that was named.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
_CHUNK_BYTES = 1 << 20


class RecordingFile:
    """A recording to append to, held by one run at a time.

    What is there is read and checked first; what a kill has torn is cut off. In a file of gzip
    each append is a member of its own, so that a kill costs the last one at most.

    Args:
        path: the file; compressed when its name ends in ``.gz`` or when it is so already.

    Attributes:
        earlier: what the file held, or None where it is new.

    Raises:
        InputError: the file is no recording, another run holds it, or it cannot be made there.
        EnvironmentFailure: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.earlier: Recording | None = None
        try:
            self._handle = open_own(path, os.O_RDWR | os.O_APPEND)
        except OSError as error:
            failure = self._failure(error)
            if error.errno in _OF_THE_DISK:
                raise failure from None
            raise InputError(failure.what, remedy="choose another --record") from None
        try:
            try:
                self._take_up()
            except BaseException:
                os.close(self._handle)
                raise
        except (OSError, ValueError) as error:
            raise self._failure(error) from None

    def _take_up(self) -> None:
        _hold(self._handle, self.path)
        self._is_gzip = self.path.suffix == ".gz"
        if os.fstat(self._handle).st_size == 0:
            return
        with os.fdopen(os.dup(self._handle), "rb") as file:
            file.seek(0)
            lines = LineStream(file)
            self.earlier = Recording.read(self.path, lines)
            self._is_gzip = lines.is_gzip
            self._cut_off(lines, file)

    def _cut_off(self, lines: LineStream, file: BinaryIO) -> None:
        """Leave whole lines alone in the file."""
        if lines.rescued_bytes:
            self._rewrite(lines, file)
        elif lines.is_torn:
            os.ftruncate(self._handle, lines.whole_bytes)
        elif lines.lacks_newline:
            self._append_bytes(b"\n")

    def _rewrite(self, lines: LineStream, file: BinaryIO) -> None:
        """Put the whole lines of a torn gzip member into one that is whole, in a new file."""
        target = self.path.resolve()
        handle, scratch = fresh_beside(target)
        try:
            _hold(handle, self.path)
            file.seek(0)
            left = lines.whole_bytes
            while left:
                left -= os.write(handle, file.read(min(left, _CHUNK_BYTES)))
            text = zlib.decompressobj(wbits=31).decompress(file.read(), lines.rescued_bytes)
            _write_all(handle, gzip.compress(text))
            os.fsync(handle)
            os.fchmod(handle, os.fstat(self._handle).st_mode & 0o777)
            fcntl.fcntl(handle, fcntl.F_SETFL, os.O_APPEND)
            scratch.replace(target)
        except BaseException:
            os.close(handle)
            scratch.unlink(missing_ok=True)
            raise
        os.close(self._handle)
        self._handle = handle

    def begin(self, environment: Environment) -> None:
        """Head what this run is going to append.

        Raises:
            InputError: what the file holds was measured in another environment.
            EnvironmentFailure: it cannot be written.
        """
        if self.earlier is not None:
            for name, was, now in _differences(self.earlier.environment, environment):
                raise InputError(
                    f"recording {self.path} has {name} {was}, this run has {now}",
                    remedy="record this run to another file with --record",
                )
        self.append([{"recording": FORMAT, "environment": environment.as_dict()}])

    def append(self, lines: Iterable[dict[str, Any]]) -> None:
        """Append ``lines`` at once.

        Raises:
            EnvironmentFailure: they cannot be written; those before are kept.
        """
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        try:
            self._append_bytes(text.encode())
        except OSError as error:
            raise self._failure(error) from None

    def _append_bytes(self, text: bytes) -> None:
        before = os.fstat(self._handle).st_size
        try:
            _write_all(self._handle, gzip.compress(text) if self._is_gzip else text)
        except OSError:
            os.ftruncate(self._handle, before)
            raise

    def _failure(self, error: Exception) -> EnvironmentFailure:
        problem = getattr(error, "strerror", None) or error
        return EnvironmentFailure(
            f"recording {self.path} cannot be written: {problem}",
            remedy="make room or choose another --record; what is recorded is kept, run again",
        )

    def close(self) -> None:
        """Make what was appended outlast a power loss, and let other runs have the file."""
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise self._failure(error) from None
        finally:
            os.close(self._handle)


def _differences(was: Environment, now: Environment) -> Iterator[tuple[str, Any, Any]]:
    """Name and both values of what differs between two environments."""
    for name, value in was.as_dict().items():
        if name == "digests" and not value:
            continue  # a recording of before they were looked at
        other = now.as_dict()[name]
        if isinstance(value, dict) and isinstance(other, dict):
            keys = [key for key in {**value, **other} if value.get(key) != other.get(key)]
            yield from ((f"{name}: {key}", value.get(key), other.get(key)) for key in keys)
        elif value != other:
            yield name, value, other


def _hold(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"recording {path} is in use by another run",
            remedy="wait for it, or record this run to another file",
        ) from None


def _write_all(handle: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]
