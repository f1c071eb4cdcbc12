"""CUTLASS_MLA: data-centre Blackwell, single-token decode, a split count for the whole process."""

__all__ = ["BACKEND", "LAUNCH", "CutlassSplits"]

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mla_tune.plan.blocks import BlockSizes
from mla_tune.plan.bounds import Numbers
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape
from mla_tune.vllm.backend import DENSE_BOUNDS, EngineSetting, FrozenSplits, Splits, VllmBackend
from mla_tune.vllm.cutlass_workspace import MOST_SPLITS, workspace_bytes
from mla_tune.vllm.digests import Release, Source
from mla_tune.vllm.observe import calls_of, set_for_now

# The method of vLLM's impl that launches the kernel, and its argument.
LAUNCH = ("_sm100_cutlass_mla_decode", "num_kv_splits")


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
        with calls_of(self._impl, *LAUNCH) as seen:
            yield seen

    def reserve(self, max_num_requests: int) -> None:
        """Size the workspace that all launches share for the most splits, before any capture.

        vLLM grows it on demand, which would leave captured graphs with a dangling pointer.
        """
        needed = workspace_bytes(max_num_requests, MOST_SPLITS)
        buffer = self._impl._workspace.get_buf()
        if buffer.shape[0] < needed:
            buffer.resize_(needed)


def _knob(setup: Setup, impl: Any, builder: Any) -> CutlassSplits:
    del builder
    knob = CutlassSplits(impl)
    knob.reserve(setup.max_num_requests)
    return knob


def _partial_bytes(setup: Setup, shape: BatchShape) -> int:
    del shape
    return workspace_bytes(setup.max_num_requests, MOST_SPLITS)


def _carry_over(frozen: FrozenSplits) -> bool:
    """The default depends on the width of the block table, in a way only a measurement tells."""
    return frozen.measured_max_model_len == frozen.max_model_len


BACKEND = VllmBackend(
    name="CUTLASS_MLA",
    aliases=("cutlass_mla",),
    module="cutlass_mla",
    majors=(10,),
    decode_parts=(
        # Its kernel is one of thousands in vLLM's main library, which no two releases share.
        Release(),
        Source("v1/attention/backends/mla/cutlass_mla.py"),
    ),
    blocks=BlockSizes((128,)),
    uniform_since=None,
    bounds={
        "prefill_backend": DENSE_BOUNDS["prefill_backend"],
        # -1 leaves the choice to the kernel.
        "num_kv_splits": Numbers((range(-1, 0), range(1, MOST_SPLITS + 1))),
    },
    settings={"num_kv_splits": EngineSetting("FORCE_NUM_KV_SPLITS={}", is_variable=True)},
    splits=Splits(knob=_knob, partial_bytes=_partial_bytes, carry_over=_carry_over),
    plugin_class="mla_tune.vllm.plugin.cutlass_mla.TunedCutlassMLABackend",
)
