"""FLASHINFER_MLA: the package flashinfer's decode kernels, and which of two runs.

FlashInfer has two for vLLM's decodes: ``trtllm-gen``, which comes compiled, and ``cute-dsl``, which
CuTe DSL compiles at its first call. vLLM (0.32 on) names one only where there is no choice:
``cute-dsl`` for heads that trtllm-gen cannot tile, and under decode context parallelism, which
needs the log-sum-exp. Otherwise it says nothing and FlashInfer decides, ``auto``: trtllm-gen, but
for decodes of one token what its autotuner has found, if that has run while the engine started. A
session runs no autotuner: what it measures as the default is trtllm-gen.

Read in vLLM 0.32.0 and 0.33.0 (``flashinfer_mla.py``) and in flashinfer-python 0.7.0.post1 and
0.7.2.post1, which they pin (``flashinfer/mla/_core.py``). Neither has a split count to set. Not yet
measured: there was no GPU for it.
"""

__all__ = [
    "AUTO",
    "BACKEND",
    "CUTE_DSL",
    "KNOB",
    "TRTLLM_GEN",
    "TunedDecode",
    "has_both",
    "most_partial_bytes",
]

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

from mla_tune.errors import UnavailableError
from mla_tune.plan.blocks import BlockSizes
from mla_tune.plan.bounds import Names
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape
from mla_tune.vllm import compat
from mla_tune.vllm.backend import DENSE_BOUNDS, VllmBackend
from mla_tune.vllm.digests import Package, Source
from mla_tune.vllm.observe import calls_of

MODULE = "vllm.v1.attention.backends.mla.flashinfer_mla"
# FlashInfer's function as vLLM's module has it, and its argument.
LAUNCH, ARGUMENT = "trtllm_batch_decode_with_kv_cache_mla", "backend"
# vLLM's own choice, by the number of query heads. None leaves it to FlashInfer.
SELECT = "_select_mla_decode_backend"
# A buffer that vLLM hands over for trtllm-gen, and that cute-dsl refuses.
COUNTER = "multi_ctas_kv_counter_buffer"

KNOB = "decode_kernel"
AUTO, TRTLLM_GEN, CUTE_DSL = "auto", "trtllm-gen", "cute-dsl"

# What cute-dsl is written for, and the rows of its tiles, each of a query token and head.
CUTE_DSL_RANK, CUTE_DSL_ROPE, CUTE_DSL_ROWS = 512, 64, 128

_chosen: ContextVar[str] = ContextVar("mla_tune_decode_kernel", default=AUTO)


class TunedDecode:
    """In the place of FlashInfer's function in vLLM's module: it calls that with a kernel set.

    A call for which vLLM names a kernel is handed on as it is. Whoever sets one has to look at what
    has arrived (`observed`).

    Args:
        function: FlashInfer's.
    """

    def __init__(self, function: Any) -> None:
        self.function = function

    @classmethod
    def of_vllm(cls) -> "TunedDecode | None":
        """Put one in its place in the installed vLLM, or find the one that stands there.

        None where this release does not know of the two kernels.
        """
        try:
            module = compat.module(MODULE)
        except UnavailableError:
            return None
        function = getattr(module, LAUNCH, None)
        if isinstance(function, cls):
            return function
        if function is None or not hasattr(module, SELECT):
            return None
        tuned = cls(function)
        setattr(module, LAUNCH, tuned)
        return tuned

    @contextmanager
    def choosing(self, kernel: str) -> Iterator[None]:
        """Decode with ``kernel`` for a while, in this thread; `AUTO` leaves it to FlashInfer."""
        before = _chosen.set(kernel)
        try:
            yield
        finally:
            _chosen.reset(before)

    def observed(self) -> AbstractContextManager[list[Any]]:
        """Collect the kernel of every call, as it reaches FlashInfer."""
        return calls_of(self, "function", ARGUMENT)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kernel = _chosen.get()
        if kernel != AUTO and ARGUMENT not in kwargs:
            kwargs[ARGUMENT] = kernel
            if kernel == CUTE_DSL:
                kwargs.pop(COUNTER, None)
        return self.function(*args, **kwargs)


def vllms_own(num_heads: int) -> str:
    """The kernel that vLLM names for so many query heads, or `AUTO`."""
    named: str | None = getattr(compat.module(MODULE), SELECT)(num_heads)
    return named or AUTO


def has_both(num_heads: int, kv_lora_rank: int, qk_rope_head_dim: int) -> bool:
    """Whether both kernels take such a layer, so that there is something to choose.

    Of vLLM's block sizes for this backend, 32 and 64, both take either.
    """
    is_written_for = (kv_lora_rank, qk_rope_head_dim) == (CUTE_DSL_RANK, CUTE_DSL_ROPE)
    return is_written_for and num_heads <= CUTE_DSL_ROWS and vllms_own(num_heads) == AUTO


def most_partial_bytes(
    requests: int, query_len: int, rows: int, *, num_heads: int, kv_lora_rank: int, sm_count: int
) -> int:
    """The most that cute-dsl keeps of partial results, which it refuses to without the room.

    ``_get_split_kv_and_workspace_size`` of flashinfer 0.7.2 without its bounds on splits: tiles of
    128 rows for the longest query of each request, times splits that fill the GPU with the tiles
    that there may really be, a pair of multiprocessors each.

    Args:
        requests: decodes of the batch.
        query_len: of the longest.
        rows: their query tokens in all.
        num_heads: query heads.
        kv_lora_rank: of the layer.
        sm_count: streaming multiprocessors of the GPU.
    """
    tiles = requests * -(-num_heads * query_len // CUTE_DSL_ROWS)
    splits = sm_count // (2 * max(1, min(rows, tiles)))
    return tiles * CUTE_DSL_ROWS * splits * (kv_lora_rank + 1) * 4 if splits > 1 else 0


class DecodeKernel:
    """FLASHINFER_MLA's ``decode_kernel``.

    Args:
        decode: what stands in the place of FlashInfer's function.
        own: the kernel that vLLM names, or `AUTO`.
        is_open: whether there is something to choose.
    """

    def __init__(self, decode: TunedDecode, own: str, *, is_open: bool) -> None:
        self._decode = decode
        self._own = own
        self._is_open = is_open

    def default(self, shapes: Sequence[BatchShape]) -> str:
        del shapes
        return self._own

    def values(self, shapes: Sequence[BatchShape]) -> tuple[str, ...]:
        del shapes
        return (AUTO, TRTLLM_GEN, CUTE_DSL) if self._is_open else (self._own,)

    def expected(self, value: str, decode_tokens: int) -> str:
        del decode_tokens
        return value

    def admits(self, value: str, decode_tokens: int) -> bool:
        """Always: batches of one query length need no more than vLLM's workspace has."""
        del value, decode_tokens
        return True

    def set(self, value: str) -> AbstractContextManager[None]:
        return self._decode.choosing(value)

    def stamp(self, metadata: Any, value: str) -> None:
        """Nothing to do: it is told with the call."""

    def observe(self) -> AbstractContextManager[list[str]]:
        return self._decode.observed()


def _knob(setup: Setup, impl: Any, builder: Any) -> DecodeKernel | None:
    """None before 0.32, which knows of one kernel."""
    del impl, builder
    decode, model = TunedDecode.of_vllm(), setup.model
    if decode is None:
        return None
    # An eager step would have to wait, while it is served, until CuTe DSL has compiled.
    is_open = setup.mode == "graph" and has_both(
        model.num_q_heads, model.kv_lora_rank, model.qk_rope_head_dim
    )
    return DecodeKernel(decode, vllms_own(model.num_q_heads), is_open=is_open)


BACKEND = VllmBackend(
    name="FLASHINFER_MLA",
    aliases=("flashinfer_mla",),
    module="flashinfer_mla",
    majors=(10,),
    extension="flashinfer",
    package="flashinfer",
    decode_parts=(
        Package("flashinfer-cubin"),
        Source("v1/attention/backends/mla/flashinfer_mla.py"),
    ),
    blocks=BlockSizes((32, 64)),
    bounds={**DENSE_BOUNDS, KNOB: Names((AUTO, TRTLLM_GEN, CUTE_DSL))},
    other_knobs={KNOB: _knob},
    plugin_class="mla_tune.vllm.plugin.flashinfer_mla.TunedFlashInferMLABackend",
)
