"""The whole lines of a recording, plain or gzip, up to where a kill has cut it off."""

__all__ = ["GZIP_MAGIC", "LineStream"]

import json
import zlib
from collections.abc import Iterator
from typing import BinaryIO

GZIP_MAGIC = b"\x1f\x8b"

MOST_LINE_BYTES = 4 << 20
"""Ten times the longest line that is written; a line of compressed zeros has no end."""

_CHUNK_BYTES = 64 << 10


class LineStream:
    """Reads a recording line by line, and knows afterwards what of the file is whole.

    A gzip file is a sequence of members, each written at once, so that a kill tears the last one
    alone; what can still be read of that one is read.

    Attributes:
        is_gzip: by what stands in the file, whatever its name.
        whole_bytes: bytes of the file up to the end of its last whole line (or gzip member).
        rescued_bytes: bytes of whole lines in the torn member behind these, decompressed.
        is_torn: whether anything was left out at the end.
        lacks_newline: whether the last line is whole but for its newline.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.is_gzip = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        self.whole_bytes = self.rescued_bytes = 0
        self.is_torn = self.lacks_newline = False

    def __iter__(self) -> Iterator[bytes]:
        """The lines, without their ends.

        Raises:
            ValueError: a line without end, or damage that is not a torn end.
            OSError: the file cannot be read.
        """
        rest = b""
        for text in self._members() if self.is_gzip else self._chunks():
            lines = (rest + text).split(b"\n")
            rest = lines.pop()
            for line in lines:
                if not self.is_gzip:
                    self.whole_bytes += len(line) + 1
                yield line
            if len(rest) > MOST_LINE_BYTES:
                raise ValueError(f"a line of more than {MOST_LINE_BYTES >> 20} MiB")
        self.rescued_bytes = max(0, self.rescued_bytes - len(rest)) if self.is_torn else 0
        if rest and not self.is_torn:
            yield from self._last(rest)

    def _last(self, line: bytes) -> Iterator[bytes]:
        """The last line, which has no end: torn, unless it is whole but for that."""
        try:
            json.loads(line)
        except (ValueError, RecursionError):
            self.is_torn = True
            return
        self.lacks_newline = True
        if not self.is_gzip:
            self.whole_bytes += len(line)
        yield line

    def _chunks(self) -> Iterator[bytes]:
        while chunk := self._file.read(_CHUNK_BYTES):
            yield chunk

    def _members(self) -> Iterator[bytes]:
        """The text of all gzip members, in bounded pieces."""
        member, is_begun, read = zlib.decompressobj(wbits=31), False, 0
        for chunk in self._chunks():
            read += len(chunk)
            waiting = chunk
            while True:
                # A file system may fill up with zeros what a power loss kept it from writing.
                if not is_begun and not waiting.strip(b"\0"):
                    self.is_torn |= bool(waiting)
                    break
                is_begun = True
                try:
                    text = member.decompress(waiting, _CHUNK_BYTES)
                except zlib.error as error:
                    raise ValueError(f"damaged gzip before byte {read}: {error}") from None
                self.rescued_bytes += len(text)
                yield text
                waiting = member.unconsumed_tail
                if member.eof:
                    waiting = member.unused_data
                    self.whole_bytes, self.rescued_bytes = read - len(waiting), 0
                    member, is_begun = zlib.decompressobj(wbits=31), False
                elif not waiting and len(text) < _CHUNK_BYTES:
                    break
        self.is_torn |= is_begun
