"""Batch shapes, in the grammar of vLLM's attention benchmark."""

__all__ = [
    "LONGEST_KV_LEN",
    "MOST_REQUESTS",
    "BatchShape",
    "RequestGroup",
    "format_size",
    "parse_size",
]

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mla_tune.errors import InputError

GRAMMAR = "[COUNT]qQUERY[k][sKV[k]] joined by '_', such as q2k, 8q1s1k or 2q2k_32q1s1k"
# Nine digits: beyond any context, and below where int() refuses to read a number.
MOST_REQUESTS = 999_999_999
LONGEST_KV_LEN = MOST_REQUESTS * 1024
_SEGMENT = re.compile(r"(\d{1,9})?q(\d{1,9})(k?)(?:s(\d{1,9})(k?))?", re.ASCII)
_SIZE = re.compile(r"(\d{1,9})([kK]?)", re.ASCII)


def parse_size(text: str | int) -> int:
    """Read a positive length such as ``512``, ``4k`` or ``4K`` (1024 tokens each).

    Raises:
        InputError: not a positive whole number with an optional ``k``.
    """
    match = _SIZE.fullmatch(str(text)) if not isinstance(text, bool) else None
    value = int(match[1]) * (1024 if match[2] else 1) if match else 0
    if value <= 0:
        raise InputError(f"cannot read the length {text!r}", valid="a whole number above 0, or 4k")
    return value


def format_size(tokens: int) -> str:
    """Write a length as the grammar does: ``512``, ``4k``."""
    return f"{tokens // 1024}k" if tokens % 1024 == 0 else str(tokens)


@dataclass(frozen=True, order=True)
class RequestGroup:
    """``count`` requests that each bring ``query_len`` new tokens to ``kv_len`` tokens in all."""

    query_len: int
    kv_len: int
    count: int

    def __str__(self) -> str:
        count = str(self.count) if self.count > 1 else ""
        kv_len = f"s{format_size(self.kv_len)}" if self.kv_len != self.query_len else ""
        return f"{count}q{format_size(self.query_len)}{kv_len}"


@dataclass(frozen=True)
class BatchShape:
    """The requests of one step, as groups of equal ones.

    Canonical: groups of the same lengths are joined, and the groups stand by descending query
    length, so that shapes which vLLM would batch alike compare equal.
    """

    groups: tuple[RequestGroup, ...]

    @classmethod
    def of(cls, groups: Iterable[RequestGroup]) -> "BatchShape":
        """Join equal groups and put them in canonical order."""
        counts: dict[tuple[int, int], int] = {}
        for group in groups:
            key = (group.query_len, group.kv_len)
            counts[key] = counts.get(key, 0) + group.count
        ordered = sorted(counts.items(), reverse=True)
        return cls(tuple(RequestGroup(q, kv, count) for (q, kv), count in ordered))

    @classmethod
    def parse(cls, text: str) -> "BatchShape":
        """Read vLLM's batch grammar, e.g. ``2q2k_32q1s1k``.

        Raises:
            InputError: points at the segment that cannot be used and says why.
        """
        segments = text.split("_")
        if len(segments) == 1:  # as in nearly all of a table's thousands
            return cls((_parse_segment(text, text, 0),))
        groups = []
        offset = 0
        for segment in segments:
            groups.append(_parse_segment(text, segment, offset))
            offset += len(segment) + 1
        shape = cls.of(groups)
        if shape.num_requests > MOST_REQUESTS:
            raise InputError(
                f"batch spec {text!r} has {shape.num_requests} requests",
                valid=f"{MOST_REQUESTS} or fewer",
            )
        return shape

    def __str__(self) -> str:
        return "_".join(str(group) for group in self.groups)

    @property
    def num_requests(self) -> int:
        return sum(group.count for group in self.groups)

    @property
    def num_query_tokens(self) -> int:
        return sum(group.count * group.query_len for group in self.groups)

    @property
    def num_kv_tokens(self) -> int:
        return sum(group.count * group.kv_len for group in self.groups)

    @property
    def query_lens(self) -> tuple[int, ...]:
        """The distinct query lengths, ascending."""
        return tuple(sorted({group.query_len for group in self.groups}))

    @property
    def max_query_len(self) -> int:
        return max(group.query_len for group in self.groups)

    @property
    def max_kv_len(self) -> int:
        return max(group.kv_len for group in self.groups)

    @property
    def is_uniform(self) -> bool:
        """Whether every request has the same query length, as a captured decode graph needs."""
        return len(self.query_lens) == 1

    @property
    def is_pure_prefill(self) -> bool:
        """Whether no request has any context yet."""
        return all(group.query_len == group.kv_len for group in self.groups)

    def requests(self) -> list[tuple[int, int]]:
        """(query_len, kv_len) of each request, in the order that vLLM brings a batch into.

        Requests with context come first, shortest queries ahead, then those without: vLLM merges
        the context's share into as many leading prefill tokens as have one.
        """
        ordered = sorted(self.groups, key=lambda group: (group.query_len == group.kv_len, group))
        return [(g.query_len, g.kv_len) for g in ordered for _ in range(g.count)]


def _parse_segment(text: str, segment: str, offset: int) -> RequestGroup:
    match = _SEGMENT.fullmatch(segment)
    if match is None:
        raise _segment_error(text, segment, offset, "cannot be read")
    count = int(match[1]) if match[1] is not None else 1
    query_len = int(match[2]) * (1024 if match[3] else 1)
    kv_len = int(match[4]) * (1024 if match[5] else 1) if match[4] else query_len
    if count == 0 or query_len == 0 or kv_len == 0:
        raise _segment_error(text, segment, offset, "has a zero; every number must be 1 or more")
    if kv_len < query_len:
        problem = (
            f"has a KV length {kv_len} below its query length {query_len}; "
            "the KV length counts the new tokens too"
        )
        raise _segment_error(text, segment, offset, problem)
    return RequestGroup(query_len, kv_len, count)


def _segment_error(text: str, segment: str, offset: int, problem: str) -> InputError:
    pointer = " " * offset + "^" * max(1, len(segment))
    return InputError(
        f"batch spec {text!r}: {segment!r} {problem}\n    {text}\n    {pointer}", valid=GRAMMAR
    )
