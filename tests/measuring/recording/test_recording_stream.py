"""Whole lines, wherever a kill or a power loss has cut a file off."""

import gzip
import io

import pytest

from mla_tune.measuring.recording.stream import MOST_LINE_BYTES, LineStream

LINES = [b'{"a": 1}', b'{"b": [2, 3]}', b'{"c": "x"}']
PLAIN = b"".join(line + b"\n" for line in LINES)
MEMBERS = [gzip.compress(line + b"\n") for line in LINES]


def read(content: bytes) -> tuple[list[bytes], LineStream]:
    stream = LineStream(io.BytesIO(content))
    return list(stream), stream


@pytest.mark.parametrize("cut", range(len(PLAIN) + 1))
def test_a_plain_file_cut_anywhere_has_its_whole_lines(cut: int) -> None:
    lines, stream = read(PLAIN[:cut])
    whole = [line for line in LINES if PLAIN.index(line) + len(line) <= cut]
    assert lines == whole
    kept = PLAIN[: stream.whole_bytes]
    assert kept.split(b"\n")[: len(whole)] == whole
    assert stream.is_torn == (stream.whole_bytes < cut)
    assert stream.lacks_newline == (bool(kept) and not kept.endswith(b"\n"))


@pytest.mark.parametrize("cut", range(sum(map(len, MEMBERS)) + 1))
def test_a_gzip_file_cut_anywhere_has_its_whole_members(cut: int) -> None:
    content = b"".join(MEMBERS)[:cut]
    lines, stream = read(content)
    ends = [sum(map(len, MEMBERS[: count + 1])) for count in range(len(MEMBERS))]
    members = sum(end <= cut for end in ends)
    assert lines[:members] == LINES[:members]
    assert stream.is_torn == (cut not in (0, *ends))
    if len(content) > 1:
        assert stream.whole_bytes == (ends[members - 1] if members else 0)


def test_what_a_torn_member_still_has_is_read() -> None:
    """A file of one member, as recordings once were, loses no more than its end."""
    text = b"".join(b'{"round": %d}\n' % number for number in range(5000))
    content = gzip.compress(text)
    lines, stream = read(content[: len(content) * 3 // 4])
    assert stream.is_torn
    assert len(lines) > 1000
    assert text.startswith(b"\n".join(lines) + b"\n")
    assert stream.rescued_bytes == len(b"\n".join(lines)) + 1


def test_zeros_at_the_end_are_a_torn_end() -> None:
    for content in (b"".join(MEMBERS), PLAIN):
        lines, stream = read(content + bytes(5000))
        assert lines == LINES
        assert stream.is_torn
        assert stream.whole_bytes == len(content)


def test_damage_before_the_end_is_no_torn_end() -> None:
    first = bytearray(MEMBERS[0])
    first[-6] ^= 1
    with pytest.raises(ValueError, match="damaged gzip"):
        read(bytes(first) + MEMBERS[1])


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_line_without_an_end_is_not_read_to_its_end(compress) -> None:
    with pytest.raises(ValueError, match="a line of more than"):
        read(compress(b" " * (MOST_LINE_BYTES + (2 << 20))))


def test_large_members_come_whole() -> None:
    line = b"[" + b"1," * 200_000 + b"1]"
    lines, stream = read(gzip.compress(line + b"\n") * 3)
    assert lines == [line] * 3
    assert not stream.is_torn
