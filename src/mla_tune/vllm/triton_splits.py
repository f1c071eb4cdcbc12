"""TRITON_MLA's split counts: what vLLM makes of a KV length, and how to ask it for a count.

Used by the session that measures counts, and by the plugin that applies them.

``metadata.max_seq_len`` feeds nothing but the split count (read in 0.20.2, 0.26.0, 0.32.0 and
0.33.0, where `reserve_workspace` and the builder go by ``max_model_len`` instead). So a batch that
reports another length gets another count. Which length stands for which count is found by calling
vLLM's own function, so that a release that changes its rule changes the answer here too.

The rule gives powers of two, "to avoid excessive kernel instantiations", and they leave waves of
thread blocks half empty where a batch is none: 11 splits of 24 requests are 1.17x as fast on an
H100 as the best power of two. `SplitRule.of_any_count` puts an object in the place of the function
that takes the count which a length above all others stands for.
"""

__all__ = [
    "MOST_ADDRESSED_BYTES",
    "SPLITS_PER_SM",
    "TRITON_MODULE",
    "AnyCount",
    "SplitRule",
    "still_better",
]

from collections.abc import Callable
from dataclasses import dataclass

from mla_tune.errors import UnavailableError
from mla_tune.vllm import compat

TRITON_MODULE = "vllm.v1.attention.backends.mla.triton_mla"
_FUNCTION = "_compute_num_kv_splits"
# From this release on the rule is a function; it was written out in forward_mqa before.
A_FUNCTION_SINCE = (0, 26)
# vLLM's formula never gives more splits for each streaming multiprocessor.
SPLITS_PER_SM = 2
# The partial results, in float32, of every (query token, head, split). The kernel addresses them
# with 32-bit offsets: 2**31 of them (8 GiB) end in an illegal access (vLLM 0.26).
MOST_ADDRESSED_BYTES = 4 * (2**31 - 1)
# Powers of two up to the longest length that vLLM's int32 lengths can have.
_LENGTHS = tuple(1 << power for power in range(31))
# The longest of them. So many more stand for a count, and without `AnyCount` for vLLM's largest.
_ASKING = _LENGTHS[-1]

Compute = Callable[[int, int], int]


@dataclass(frozen=True)
class AnyCount:
    """In the place of vLLM's function: its rule, and any count that is asked for."""

    rule: Compute

    def __call__(self, max_seq_len: int, sm_count: int) -> int:
        if max_seq_len > _ASKING:
            return max_seq_len - _ASKING
        return self.rule(max_seq_len, sm_count)


class SplitRule:
    """How many splits TRITON_MLA takes, as a function of the longest KV length of a batch.

    Args:
        compute: from ``max_seq_len`` and ``sm_count`` to the count.
        sm_count: streaming multiprocessors.
    """

    def __init__(self, compute: Compute, sm_count: int) -> None:
        self._compute = compute
        self._sm_count = sm_count
        self._length_of: dict[int, int] = {}
        for length in _LENGTHS:
            self._length_of.setdefault(self.splits(length), length)

    @classmethod
    def of_vllm(cls, sm_count: int) -> "SplitRule":
        """The rule of the installed vLLM.

        Raises:
            UnavailableError: it is not where this release would have it.
        """
        compute = getattr(compat.module(TRITON_MODULE), _FUNCTION, None)
        if compute is None and compat.since(A_FUNCTION_SINCE):
            raise UnavailableError(
                f"TRITON_MLA of this vLLM has no {_FUNCTION}: its split counts are not known",
                remedy="report it with the vLLM release",
            )
        return cls(compute or _written_out, sm_count)

    @classmethod
    def of_any_count(cls, sm_count: int) -> "SplitRule":
        """The rule of the installed vLLM, which may be asked for any count from here on.

        In 0.20 to 0.25 it is no function that could be replaced; there it is as `of_vllm`.

        Raises:
            UnavailableError: as `of_vllm`.
        """
        module = compat.module(TRITON_MODULE)
        compute = getattr(module, _FUNCTION, None)
        if compute is not None and not isinstance(compute, AnyCount):
            setattr(module, _FUNCTION, AnyCount(compute))
        return cls.of_vllm(sm_count)

    def splits(self, max_seq_len: int) -> int:
        """The count that vLLM takes for a batch whose longest request has ``max_seq_len``."""
        return int(self._compute(max_seq_len, self._sm_count))

    def length_for(self, splits: int) -> int | None:
        """A ``max_seq_len`` for which vLLM takes exactly ``splits``; None if there is none.

        None is more than the largest that vLLM takes by itself, for which it has a workspace.
        """
        length = self._length_of.get(splits)
        if length is None and self.takes_any_count and 1 <= splits <= max(self._length_of):
            return _ASKING + splits
        return length

    @property
    def takes_any_count(self) -> bool:
        """Whether counts can be asked for that vLLM never takes by itself."""
        return isinstance(self._compute, AnyCount)

    def most_within(self, room: int) -> int:
        """The largest of `counts` that is at most ``room``; else the smallest."""
        counts = sorted(self._length_of)
        return max((count for count in counts if count <= room), default=counts[0])

    @property
    def counts(self) -> tuple[int, ...]:
        """Every count that vLLM takes by itself, for some length."""
        return tuple(sorted(self._length_of))


def _written_out(max_seq_len: int, sm_count: int) -> int:
    """The rule as it stands in ``forward_mqa`` of 0.20 to 0.25: parts of 512 tokens or more."""
    parts = max(1, max_seq_len // 512)
    return min(1 << (parts - 1).bit_length(), SPLITS_PER_SM * sm_count)


def still_better(splits: int, *, table_default: int, engine_default: int) -> bool:
    """Whether splits that beat ``table_default`` also beat ``engine_default``.

    A kernel's latency falls to its best split count and rises from there. ``splits`` was
    measured against the table's default; a default that lies still farther out on the same side
    is slower yet, one between the two was never confirmed against it.
    """
    if splits <= table_default:
        return table_default <= engine_default
    return table_default >= engine_default
