"""FLASH_ATTN_MLA: Hopper's own choice, with a cap on the splits that its kernel chooses."""

__all__ = ["BACKEND", "CAP", "EXTENSION", "LAUNCH", "FlashAttnCap"]

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mla_tune.plan.blocks import BlockSizes
from mla_tune.plan.bounds import Numbers
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape
from mla_tune.vllm import compat
from mla_tune.vllm.backend import DENSE_BOUNDS, EngineSetting, FrozenSplits, Splits, VllmBackend
from mla_tune.vllm.digests import Binary, Source
from mla_tune.vllm.memory import bytes_per_split
from mla_tune.vllm.observe import calls_of, set_for_now

EXTENSION = "vllm_flash_attn/_vllm_fa3_C*.so"
# The setting of vLLM's AttentionConfig that caps the splits of captured batches.
CAP = "flash_attn_max_num_splits_for_cuda_graph"
# The function of vLLM's module that launches the kernel, and its argument.
LAUNCH = ("flash_attn_varlen_func", "num_splits")
# The partial results that are worth trying, beside the default's.
LARGEST_GRAPH_BYTES = 2 * 2**30
# vLLM's own cap, where none is configured.
OWN_CAP = 32


class FlashAttnCap:
    """FLASH_ATTN_MLA's upper bound on the splits it chooses at each step; 0 is none.

    It acts on batches that a graph could cover, also when they run eagerly. In graph mode there is
    always a bound: the kernel's buffers are allocated at capture and its schedule at each step,
    and the two must agree on it.
    """

    CAPS = (0, 1, 2, 4, 8, 16, 32, 64, 128)
    # Tokens in one step of the kernel's loop over the KV cache.
    TILE = 64

    def __init__(self, builder: Any, mode: str) -> None:
        self._builder = builder
        self._smallest = 1 if mode == "graph" else 0
        self._bytes_per_split = bytes_per_split(
            int(builder.num_heads), int(builder.mla_dims.kv_lora_rank)
        )
        self._default = int(builder.max_num_splits)
        self._capture_limit = 0
        if builder.use_full_cuda_graph:
            self._capture_limit = int(builder.max_cudagraph_size or 0)

    def default(self, shapes: Sequence[BatchShape]) -> int:
        del shapes
        return self._default

    def values(self, shapes: Sequence[BatchShape]) -> tuple[int, ...]:
        tiles = max(shape.max_kv_len for shape in shapes) // self.TILE
        return tuple(cap for cap in self.CAPS if self._smallest <= cap <= max(1, tiles))

    def expected(self, value: int, decode_tokens: int) -> int:
        return value if decode_tokens <= self._capture_limit else 0

    def admits(self, value: int, decode_tokens: int) -> bool:
        # A batch that fills the GPU by itself gains nothing from more parts, and each captured
        # graph keeps its own buffers.
        return decode_tokens * value * self._bytes_per_split <= LARGEST_GRAPH_BYTES

    @contextmanager
    def set(self, value: int) -> Iterator[None]:
        with set_for_now(self._builder, "max_num_splits", value):
            yield

    def stamp(self, metadata: Any, value: int) -> None:
        """Nothing to do: the builder put it there."""

    @contextmanager
    def observe(self) -> Iterator[list[int]]:
        module = compat.module("vllm.v1.attention.backends.mla.flashattn_mla")
        with calls_of(module, *LAUNCH) as seen:
            yield seen


def _knob(setup: Setup, impl: Any, builder: Any) -> FlashAttnCap:
    del impl
    return FlashAttnCap(builder, setup.mode)


def _partial_bytes(setup: Setup, shape: BatchShape) -> int:
    """Of an eager pass, or of the graphs of all caps, each of which keeps its own."""
    model, tokens = setup.model, min(shape.num_query_tokens, 512)
    a_split = tokens * bytes_per_split(model.num_q_heads, model.kv_lora_rank)
    if setup.mode == "eager":
        return max(a_split * OWN_CAP, LARGEST_GRAPH_BYTES)
    tried = (cap for cap in FlashAttnCap.CAPS if a_split * cap <= LARGEST_GRAPH_BYTES)
    return a_split * (OWN_CAP + sum(tried))


def _carry_over(frozen: FrozenSplits) -> bool:
    """The cap does not depend on max_model_len, but a graph needs one.

    Without a bound (0) the kernel sizes its buffers at capture and its schedule at each step,
    from different lengths.
    """
    return frozen.splits > 0


BACKEND = VllmBackend(
    name="FLASH_ATTN_MLA",
    aliases=("flash_attn_mla", "flashattn_mla"),
    module="flashattn_mla",
    majors=(9,),
    kv_cache_dtypes=("auto", "bfloat16"),
    extension=EXTENSION,
    decode_parts=(
        Binary("vllm_flash_attn/_vllm_fa3_C*.so"),
        Source(
            "vllm_flash_attn/flash_attn_interface.py",
            ("flash_attn_varlen_func", "get_scheduler_metadata"),
        ),
        Source("v1/attention/backends/mla/flashattn_mla.py"),
    ),
    blocks=BlockSizes((16,), multiples=True),
    # A cap; 0 is none. FlashAttention itself stops at 256.
    bounds={**DENSE_BOUNDS, "num_kv_splits": Numbers((range(256 + 1),))},
    settings={"num_kv_splits": EngineSetting(f"--attention-config.{CAP}={{}}", modes=("graph",))},
    splits=Splits(
        knob=_knob,
        partial_bytes=_partial_bytes,
        own_partials=True,
        carry_over=_carry_over,
        # vLLM's own cap holds for eager steps up to that size, and for none beyond.
        follow_capture_size=True,
        cut="scheduled",
    ),
    plugin_class="mla_tune.vllm.plugin.flash_attn_mla.TunedFlashAttnMLABackend",
)
