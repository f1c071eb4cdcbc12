"""TRITON_MLA's split counts: how vLLM is asked for one, and the workspace that they occupy."""

__all__ = ["SplitLengths", "row_splits_needed"]

from collections.abc import Iterable

from mla_tune.plan.cut import BLOCK_H
from mla_tune.vllm.memory import bytes_per_split
from mla_tune.vllm.triton_splits import MOST_ADDRESSED_BYTES, SPLITS_PER_SM, SplitRule

# Thread blocks of the decode kernel that keep a GPU busy many times over. More splits than that
# cannot help, so a step that no table answers is never cut below it.
WAVES = 16


def row_splits_needed(
    captured: Iterable[tuple[int, int]],
    eager: Iterable[tuple[int, int]],
    *,
    rows: int,
    vllm_splits: int,
    num_heads: int,
    kv_lora_rank: int,
    sm_count: int,
) -> int:
    """Rows x splits for which TRITON_MLA's workspace has to have room.

    Args:
        captured: (rows, splits) of every graph, vLLM's own count where the table has none.
        eager: (rows, splits) that lookups in eager steps can ask for.
        rows: the most rows of queries of any decode step.
        vllm_splits: what vLLM reserves for every row.
        num_heads: query heads the kernel sees.
        kv_lora_rank: values of a partial result, beside its log-sum-exp.
        sm_count: streaming multiprocessors.

    Returns:
        At most ``rows * vllm_splits``, vLLM's own, and no more than the kernel can address.
    """
    blocks = -(-num_heads // BLOCK_H)
    floor = WAVES * SPLITS_PER_SM * sm_count // blocks
    wanted = [count * splits for count, splits in captured]
    wanted += [min(count, rows) * splits for count, splits in eager]
    addressable = MOST_ADDRESSED_BYTES // bytes_per_split(num_heads, kv_lora_rank)
    return min(max(rows, floor, *wanted), rows * vllm_splits, max(rows, addressable))


class SplitLengths:
    """The KV lengths to report to vLLM's split rule, so that it takes the counts we want.

    Args:
        rule: vLLM's.
        row_splits: rows x splits that the workspace has room for; None for any number.
    """

    def __init__(self, rule: SplitRule, row_splits: int | None) -> None:
        self.rule = rule
        self._row_splits = row_splits
        self._known: dict[tuple[int, int], tuple[int | None, bool]] = {}

    def asking_for(self, splits: int, rows: int) -> tuple[int | None, bool]:
        """The length to report for ``splits`` of ``rows`` rows, and whether all of them fit.

        A step with more splits than were reserved raises "Workspace is locked" in vLLM, so no more
        than fit are asked for. There is no length for a count that vLLM never takes.
        """
        known = self._known.get((splits, rows))
        if known is None:
            room = splits if self._row_splits is None else max(1, self._row_splits // rows)
            fits = splits <= room
            length = self.rule.length_for(splits if fits else self.rule.most_within(room))
            known = self._known[splits, rows] = (length, fits and length is not None)
        return known
