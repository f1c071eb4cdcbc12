"""The workspace that TRITON_MLA's split counts occupy."""

__all__ = ["row_splits_needed"]

from collections.abc import Iterable

from mla_tune.vllm.triton_splits import MOST_ADDRESSED_BYTES, SPLITS_PER_SM

# Thread blocks of the decode kernel that keep a GPU busy many times over. More splits than that
# cannot help, so a step that no table answers is never cut below it.
WAVES = 16
HEADS_PER_BLOCK = 16


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
    blocks = -(-num_heads // HEADS_PER_BLOCK)
    floor = WAVES * SPLITS_PER_SM * sm_count // blocks
    wanted = [count * splits for count, splits in captured]
    wanted += [min(count, rows) * splits for count, splits in eager]
    addressable = MOST_ADDRESSED_BYTES // (4 * num_heads * (kv_lora_rank + 1))
    return min(max(rows, floor, *wanted), rows * vllm_splits, max(rows, addressable))
