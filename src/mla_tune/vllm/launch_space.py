"""Which launches of TRITON_MLA's decode kernel are worth trying on a GPU, known before compiling.

A launch that needs more shared memory than a thread block can have compiles for a second or more
and then fails. What one needs follows from the kernel's tiles and from how Triton keeps them. The
formula is of vLLM's kernel compiled by Triton 3.6.0 for capabilities 8.9, 9.0, 10.0 and 12.0
(``shared`` in the compiled kernel's metadata, kept in ``tests/data/launch_shared_bytes.json``):
it is never below that.
"""

__all__ = ["LaunchSpace"]

import itertools
from dataclasses import dataclass

from mla_tune.plan.launch import LAUNCH_KNOBS
from mla_tune.plan.plan import Plan
from mla_tune.shapes import MlaDimensions

BLOCK_N = (16, 32, 64, 128)
# Triton's products take 16 rows at least.
BLOCK_H = (16, 32, 64)
NUM_WARPS = (4, 8)
# More than two keep no more tiles: the page table's entry is loaded before the tile it points to,
# and takes the third stage.
NUM_STAGES = (1, 2, 3)
MOST_TILES_KEPT = 2
# Rows from which on tensor cores read both factors from shared memory, in these capabilities.
WARP_GROUP_ROWS = 64
HOPPER = 9
WARP_GROUPS = (HOPPER, 10)
BARRIERS = 1024


@dataclass(frozen=True)
class LaunchSpace:
    """The launches of one layer's decode kernel.

    Attributes:
        model: its dimensions.
        cache_bytes: of a value in the KV cache, 1 or 2.
        major: the compute capability's first number; 0 where there is none.
        loads_values: whether the kernel loads the latents a second time, as values. It does in
            releases in which it does not know that it is MLA.
    """

    model: MlaDimensions
    cache_bytes: int = 2
    major: int = 0
    loads_values: bool = False

    def launches(self, most_bytes: int, own: Plan) -> tuple[Plan, ...]:
        """``own``, and those worth trying where a thread block can have ``most_bytes``.

        A constant that has one value only is left open: ``block_h`` of up to 16 heads.
        """
        block_h = self._head_blocks()
        combinations = itertools.product(BLOCK_N, block_h, NUM_WARPS, NUM_STAGES)
        launches = [Plan(**dict(zip(LAUNCH_KNOBS, each, strict=True))) for each in combinations]
        fitting = [launch for launch in launches if self.shared_bytes(launch) <= most_bytes]
        open_knobs = ("block_h",) if len(block_h) == 1 else ()
        return tuple(dict.fromkeys(each.without(*open_knobs) for each in (own, *fitting)))

    def _head_blocks(self) -> tuple[int, ...]:
        """Up to the first that holds all heads; a larger one is the same with idle rows."""
        return tuple(size for size in BLOCK_H if size < 2 * self.model.num_q_heads) or BLOCK_H[:1]

    def shared_bytes(self, launch: Plan) -> int:
        """Shared memory of a thread block, in bytes, for a launch with all constants set.

        The sum of the queries' tile, a step's tile of the cache as the products read it, and
        beside it what is loaded ahead: the tile of the next step, in the cache's own type.
        """
        block_n, block_h = launch.number("block_n") or 0, launch.number("block_h") or 0
        ahead = min(launch.number("num_stages") or 0, MOST_TILES_KEPT)
        rank = _power_of_two(self.model.kv_lora_rank)
        width = rank + _power_of_two(self.model.qk_rope_head_dim)
        loaded = width + (rank if self.loads_values else 0)
        queries, tile, pages = 2 * block_h * width, 2 * block_n * loaded, 8 * block_n
        raw = self.cache_bytes * block_n * loaded
        if block_h < WARP_GROUP_ROWS or self.major not in WARP_GROUPS:
            # What is loaded ahead in 16 bits is read by the products where it lies.
            converted = 0 if self.cache_bytes == 2 else raw * ahead
            shuffled = max(16 * rank, 0 if self.cache_bytes == 2 else 5 * rank * block_n // 8)
            return queries + tile + pages + converted + shuffled
        # The result passes through shared memory when the loop is done; out of tensor memory also
        # at each step of a loop that loads ahead, unless the products wait for a conversion.
        result = 4 * block_h * rank
        passes = self.major != HOPPER and self.cache_bytes == 2 and ahead > 1
        looping = queries + tile + pages + raw * (ahead - 1) + (result if passes else 0)
        return max(looping + BARRIERS, result)


def _power_of_two(width: int) -> int:
    """What the kernel's tiles are rounded up to; 0 stays 0."""
    return 1 << (width - 1).bit_length() if width else 0
