"""TOKENSPEED_MLA: fp8 alone, with a floor under the splits that its kernel chooses.

Its package is pinned exactly by each vLLM release, which tells it. The kernel cuts the KV cache
into as many parts as fill the GPU; `min_split_kv` (vLLM 0.32 on; in the plugin from 0.33 on)
has it cut at least so many. It rounds down where parts would be empty: ``ceil(tiles / ceil(tiles /
splits))`` with tiles of 128 tokens (``mla_decode.py`` of tokenspeed-mla 2.0.4). Not yet measured:
there was no GPU for it.
"""

__all__ = ["BACKEND", "FLOOR", "LAUNCH", "MOST_BYTES", "SplitFloor", "partial_bytes"]

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mla_tune.plan.blocks import BlockSizes
from mla_tune.plan.bounds import Numbers
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape
from mla_tune.vllm import compat, workspace
from mla_tune.vllm.backend import DENSE_BOUNDS, EngineSetting, VllmBackend
from mla_tune.vllm.digests import Package, Source
from mla_tune.vllm.observe import calls_of, set_for_now

PACKAGE = "tokenspeed_mla"
# The function of the package that launches the kernel, and its argument.
LAUNCH = ("tokenspeed_mla_decode", "min_split_kv")
# The setting of vLLM's AttentionConfig, and the attribute of its impl that holds it.
FLOOR = "tokenspeed_mla_min_split_kv"
ATTRIBUTE = "_min_split_kv"
# What the impl sizes the kernels' workspace for, once there is a floor.
ROWS = "_max_decode_tokens"
# The partial results that are worth trying; the kernel refuses 2 GiB.
MOST_BYTES = 2**30


def partial_bytes(rows: int, floor: int, *, num_heads: int, kv_lora_rank: int) -> int:
    """The partial results of ``rows`` query tokens, as vLLM 0.33's ``_get_workspace`` counts them.

    Heads are padded to 128, the rows of a tile.
    """
    return rows * max(num_heads, 128) * floor * (kv_lora_rank + 1) * 4


class SplitFloor:
    """TOKENSPEED_MLA's ``min_split_kv``; 1 is none."""

    FLOORS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    # Tokens in one step of the kernel's loop over the KV cache.
    TILE = 128

    def __init__(self, impl: Any, num_heads: int, kv_lora_rank: int) -> None:
        self._impl = impl
        self._num_heads = num_heads
        self._kv_lora_rank = kv_lora_rank
        self._default = int(getattr(impl, ATTRIBUTE))

    def bytes(self, rows: int, floor: int) -> int:
        """As `partial_bytes`, of this layer."""
        heads, rank = self._num_heads, self._kv_lora_rank
        return partial_bytes(rows, floor, num_heads=heads, kv_lora_rank=rank)

    def default(self, shapes: Sequence[BatchShape]) -> int:
        del shapes
        return self._default

    def values(self, shapes: Sequence[BatchShape]) -> tuple[int, ...]:
        tiles = max(1, max(shape.max_kv_len for shape in shapes) // self.TILE)
        return tuple(floor for floor in self.FLOORS if floor <= tiles)

    def expected(self, value: int, decode_tokens: int) -> int:
        del decode_tokens
        return value

    def admits(self, value: int, decode_tokens: int) -> bool:
        return value == 1 or self.bytes(decode_tokens, value) <= MOST_BYTES

    @contextmanager
    def set(self, value: int) -> Iterator[None]:
        # As many rows as fit what `reserve` has taken: vLLM's buffer must not grow once there are
        # graphs that point to it.
        rows = MOST_BYTES // self.bytes(1, value)
        with set_for_now(self._impl, ATTRIBUTE, value), set_for_now(self._impl, ROWS, rows):
            yield

    def stamp(self, metadata: Any, value: int) -> None:
        """Nothing to do: the impl reads its own attribute."""

    @contextmanager
    def observe(self) -> Iterator[list[int]]:
        with calls_of(compat.module(PACKAGE), *LAUNCH) as seen:
            yield seen

    def reserve(self) -> None:
        """Have the workspace that all launches share hold `MOST_BYTES`, before any capture."""
        found = workspace.manager()
        if found is not None:
            import torch

            found.get_simultaneous(((MOST_BYTES,), torch.int8))


def _knob(setup: Setup, impl: Any, builder: Any) -> SplitFloor | None:
    """None before 0.32, which has no such floor."""
    del builder
    if not hasattr(impl, ATTRIBUTE):
        return None
    knob = SplitFloor(impl, setup.model.num_q_heads, setup.model.kv_lora_rank)
    knob.reserve()
    return knob


BACKEND = VllmBackend(
    name="TOKENSPEED_MLA",
    aliases=("tokenspeed_mla",),
    module="tokenspeed_mla",
    majors=(10,),
    kv_cache_dtypes=("fp8", "fp8_e4m3"),
    extension=PACKAGE,
    decode_parts=(
        Package("tokenspeed-mla"),
        Source("v1/attention/backends/mla/tokenspeed_mla.py"),
    ),
    blocks=BlockSizes((32, 64)),
    bounds={**DENSE_BOUNDS, "min_split_kv": Numbers((range(1, 256 + 1),))},
    settings={"min_split_kv": EngineSetting(f"--attention-config.{FLOOR}={{}}")},
    other_knobs={"min_split_kv": _knob},
    plugin_class="mla_tune.vllm.plugin.tokenspeed_mla.TunedTokenspeedMLABackend",
)
