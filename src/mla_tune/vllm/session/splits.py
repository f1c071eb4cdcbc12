"""The split knobs: what each backend's value means, how it is set, and how it is seen to act."""

__all__ = ["CutlassSplits", "FlashAttnCap", "SplitKnob", "TritonSplits"]

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from mla_tune.shapes import BatchShape
from mla_tune.vllm import compat
from mla_tune.vllm.cutlass_workspace import MOST_SPLITS, workspace_bytes
from mla_tune.vllm.observe import calls_of, set_for_now
from mla_tune.vllm.triton_splits import SplitRule

# Attention logits and their log-sum-exp, float32, of every (query token, head, split). vLLM 0.26's
# TRITON_MLA addresses them with 32-bit offsets: 2**31 of them (8 GiB) end in an illegal access.
LARGEST_WORKSPACE_BYTES = 8 * 2**30
# The partial results of FLASH_ATTN_MLA that are worth trying, beside its default.
LARGEST_GRAPH_BYTES = 2 * 2**30


class SplitKnob(Protocol):
    """One backend's ``num_kv_splits``."""

    def default(self, shapes: Sequence[BatchShape]) -> int:
        """The value that vLLM uses for ``shapes`` without any knob."""
        ...

    def values(self, shapes: Sequence[BatchShape]) -> tuple[int, ...]:
        """The values worth trying for ``shapes``."""
        ...

    def expected(self, value: int, decode_tokens: int) -> int:
        """The split count that must reach the kernel of a batch with so many decode tokens."""
        ...

    def admits(self, value: int, decode_tokens: int) -> bool:
        """Whether the workspace of ``value`` splits is one that the kernel can address."""
        ...

    def set(self, value: int) -> AbstractContextManager[None]:
        """Set ``value`` where vLLM looks for it, for as long as the context lasts."""
        ...

    def stamp(self, metadata: Any, value: int) -> None:
        """Write ``value`` into the metadata of one batch, where that is how it is told."""
        ...

    def observe(self) -> AbstractContextManager[list[int]]:
        """Collect the split count of every kernel launch while the context lasts."""
        ...


class TritonSplits:
    """TRITON_MLA computes the count from ``metadata.max_seq_len``, which feeds nothing else.

    Args:
        rule: how vLLM computes it.
        num_heads, lora_rank: decide, with the tokens, on the workspace of a split.
        frozen_max_seq_len: what a captured graph saw as ``max_seq_len``; None in eager mode.
    """

    # One tile of the kernel's loop over the KV cache: a split below it leaves lanes idle.
    SMALLEST_SPLIT = 16

    def __init__(
        self, rule: SplitRule, num_heads: int, lora_rank: int, frozen_max_seq_len: int | None
    ) -> None:
        self._rule = rule
        self._bytes_per_split = num_heads * (lora_rank + 1) * 4
        self._frozen_max_seq_len = frozen_max_seq_len

    def default(self, shapes: Sequence[BatchShape]) -> int:
        longest = max(shape.max_kv_len for shape in shapes)
        return self._rule.splits(self._frozen_max_seq_len or longest)

    def values(self, shapes: Sequence[BatchShape]) -> tuple[int, ...]:
        longest = max(shape.max_kv_len for shape in shapes)
        most = max(1, longest // self.SMALLEST_SPLIT)
        # vLLM's upper bound, twice the number of SMs, is within a few percent of a power of two.
        powers = (count for count in self._rule.counts if count.bit_count() == 1)
        return tuple(count for count in powers if count <= most)

    def expected(self, value: int, decode_tokens: int) -> int:
        del decode_tokens
        return value

    def admits(self, value: int, decode_tokens: int) -> bool:
        return decode_tokens * value * self._bytes_per_split < LARGEST_WORKSPACE_BYTES

    @contextmanager
    def set(self, value: int) -> Iterator[None]:
        del value
        yield

    def stamp(self, metadata: Any, value: int) -> None:
        # A count that vLLM never takes is left to the check of the first run.
        metadata.max_seq_len = self._rule.length_for(value) or metadata.max_seq_len

    @contextmanager
    def observe(self) -> Iterator[list[int]]:
        module = compat.module("vllm.v1.attention.backends.mla.triton_mla")
        with calls_of(module, "decode_attention_fwd", "num_kv_splits") as seen:
            yield seen


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
        self._bytes_per_split = int(builder.num_heads * (builder.mla_dims.kv_lora_rank + 1) * 4)
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
        with calls_of(module, "flash_attn_varlen_func", "num_splits") as seen:
            yield seen


class CutlassSplits:
    """CUTLASS_MLA's ``_num_kv_splits``; -1 lets it choose, by batch size and table width.

    More than 16 is left out: vLLM's own limit, because of hangs.
    """

    VALUES = (-1, 1, 2, 4, 8, MOST_SPLITS)

    def __init__(self, impl: Any) -> None:
        self._impl = impl
        self._default = int(impl._num_kv_splits)

    def default(self, shapes: Sequence[BatchShape]) -> int:
        del shapes
        return self._default

    def values(self, shapes: Sequence[BatchShape]) -> tuple[int, ...]:
        del shapes
        return self.VALUES

    def expected(self, value: int, decode_tokens: int) -> int:
        del decode_tokens
        return value

    def admits(self, value: int, decode_tokens: int) -> bool:
        del value, decode_tokens
        return True

    @contextmanager
    def set(self, value: int) -> Iterator[None]:
        with set_for_now(self._impl, "_num_kv_splits", value):
            yield

    def stamp(self, metadata: Any, value: int) -> None:
        """Nothing to do: the impl reads its own attribute."""

    @contextmanager
    def observe(self) -> Iterator[list[int]]:
        with calls_of(self._impl, "_sm100_cutlass_mla_decode", "num_kv_splits") as seen:
            yield seen

    def reserve(self, max_num_requests: int) -> None:
        """Size the workspace that all launches share for the most splits, before any capture.

        vLLM grows it on demand, which would leave captured graphs with a dangling pointer.
        """
        needed = workspace_bytes(max_num_requests, MOST_SPLITS)
        buffer = self._impl._workspace.get_buf()
        if buffer.shape[0] < needed:
            buffer.resize_(needed)
