"""TRITON_MLA: the portable backend, whose split count vLLM computes from the KV length alone."""

__all__ = ["BACKEND", "LAUNCH", "TritonSplits", "filling_splits"]

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mla_tune.plan.blocks import BlockSizes
from mla_tune.plan.bounds import Numbers
from mla_tune.plan.cut import BLOCK_H
from mla_tune.plan.kernel_resources import KernelResources
from mla_tune.plan.plan import Plan
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape
from mla_tune.vllm import compat
from mla_tune.vllm.backend import DENSE_BOUNDS, FrozenSplits, Splits, VllmBackend
from mla_tune.vllm.digests import Source
from mla_tune.vllm.launch_space import LaunchSpace
from mla_tune.vllm.memory import bytes_per_split
from mla_tune.vllm.observe import calls_of
from mla_tune.vllm.triton_launch import VLLM_LAUNCH, TunedKernel
from mla_tune.vllm.triton_splits import (
    MOST_ADDRESSED_BYTES,
    SPLITS_PER_SM,
    TRITON_MODULE,
    SplitRule,
    still_better,
)

if TYPE_CHECKING:
    import torch

# What a thread block can have on Hopper: in Triton's interpreter every launch runs.
INTERPRETED_SHARED_BYTES = 227 << 10
# The function of vLLM's module that launches the kernel, and its argument.
LAUNCH = ("decode_attention_fwd", "num_kv_splits")
# Of the counts that fill a number of waves, those of one and two held every best one of ten batch
# sizes between 4 and 264, of 33 counts that were measured on an H100.
WAVES = (1, 2)


def filling_splits(rows: int, *, sm_count: int, num_q_heads: int) -> Iterator[int]:
    """The largest counts with which ``rows`` of queries need no more than one, or two, waves.

    A wave is as many thread blocks as run at once: `SPLITS_PER_SM` on each multiprocessor, which is
    what fitted latencies best on an H100 and an H200.
    """
    blocks = rows * -(-num_q_heads // BLOCK_H)
    for waves in WAVES:
        splits = waves * SPLITS_PER_SM * sm_count // blocks
        if splits:
            yield splits


class TritonSplits:
    """TRITON_MLA computes the count from ``metadata.max_seq_len``, which feeds nothing else.

    Args:
        rule: how vLLM computes it.
        bytes_per_split: of the partial result of one query token.
        frozen_max_seq_len: what a captured graph saw as ``max_seq_len``; None in eager mode.
        filling: the counts that fill whole waves with so many rows of queries.
    """

    # One tile of the kernel's loop over the KV cache: a split below it leaves lanes idle.
    SMALLEST_SPLIT = 16

    def __init__(
        self,
        rule: SplitRule,
        bytes_per_split: int,
        frozen_max_seq_len: int | None,
        filling: Callable[[int], Iterable[int]] = lambda _: (),
    ) -> None:
        self._rule = rule
        self._bytes_per_split = bytes_per_split
        self._frozen_max_seq_len = frozen_max_seq_len
        self._filling = filling

    def default(self, shapes: Sequence[BatchShape]) -> int:
        longest = max(shape.max_kv_len for shape in shapes)
        return self._rule.splits(self._frozen_max_seq_len or longest)

    def values(self, shapes: Sequence[BatchShape]) -> tuple[int, ...]:
        longest = max(shape.max_kv_len for shape in shapes)
        most = max(1, longest // self.SMALLEST_SPLIT)
        # vLLM's upper bound, twice the number of SMs, is within a few percent of a power of two.
        powers = {count for count in self._rule.counts if count.bit_count() == 1}
        filling: set[int] = set()
        # Each count is a kernel of its own to Triton. A captured graph has one, compiled when the
        # engine starts; eager steps would compile theirs while they are served.
        if self._frozen_max_seq_len is not None and self._rule.takes_any_count:
            filling = set(self._filling(max(shape.num_query_tokens for shape in shapes)))
        return tuple(
            count
            for count in sorted(powers | filling)
            if count <= most and self._rule.length_for(count) is not None
        )

    def expected(self, value: int, decode_tokens: int) -> int:
        del decode_tokens
        return value

    def admits(self, value: int, decode_tokens: int) -> bool:
        return decode_tokens * value * self._bytes_per_split <= MOST_ADDRESSED_BYTES

    @contextmanager
    def set(self, value: int) -> Iterator[None]:
        del value
        yield

    def stamp(self, metadata: Any, value: int) -> None:
        # A count that cannot be asked for is left to the check of the first run.
        metadata.max_seq_len = self._rule.length_for(value) or metadata.max_seq_len

    @contextmanager
    def observe(self) -> Iterator[list[int]]:
        with calls_of(compat.module(TRITON_MODULE), *LAUNCH) as seen:
            yield seen


def _knob(setup: Setup, impl: Any, builder: Any) -> TritonSplits:
    del builder
    sm_count, heads = int(impl._sm_count), setup.model.num_q_heads
    return TritonSplits(
        rule=SplitRule.of_any_count(sm_count),
        bytes_per_split=bytes_per_split(heads, setup.model.kv_lora_rank),
        frozen_max_seq_len=setup.max_model_len if setup.mode == "graph" else None,
        filling=partial(filling_splits, sm_count=sm_count, num_q_heads=heads),
    )


@dataclass(frozen=True)
class TritonLauncher:
    """Sets the launch constants of a session's decode kernel.

    Attributes:
        kernel: what stands in the place of vLLM's.
        setup: of the session.
    """

    kernel: TunedKernel
    setup: Setup

    def tried(self, device: "torch.device") -> tuple[Plan, ...]:
        major, most_bytes = 0, INTERPRETED_SHARED_BYTES
        if device.type == "cuda":
            import torch

            # torch's type stubs lack the second.
            properties: Any = torch.cuda.get_device_properties(device)
            major, most_bytes = properties.major, properties.shared_memory_per_block_optin
        space = LaunchSpace(
            self.setup.model,
            cache_bytes=1 if self.setup.kv_cache_dtype.startswith("fp8") else 2,
            major=major,
            loads_values="IS_MLA" not in self.kernel.arg_names,
        )
        return space.launches(most_bytes, VLLM_LAUNCH)

    def launching(self, launch: Plan) -> AbstractContextManager[None]:
        return self.kernel.launching(launch)

    def observed(self) -> AbstractContextManager[list[Plan]]:
        return self.kernel.observed()

    def resources(self) -> AbstractContextManager[list[KernelResources]]:
        return self.kernel.resources()


def _launcher(setup: Setup) -> TritonLauncher | None:
    """None too for a single head, for which vLLM launches another kernel."""
    kernel = TunedKernel.of_vllm() if setup.model.num_q_heads > 1 else None
    return TritonLauncher(kernel, setup) if kernel is not None else None


def _partial_bytes(setup: Setup, shape: BatchShape) -> int:
    """What vLLM reserves for the longest sequence: 256 splits from 64k on, 264 at most."""
    model, splits = setup.model, min(256, max(1, setup.max_model_len // 512))
    per_split = bytes_per_split(model.num_q_heads, model.kv_lora_rank)
    reserved = setup.max_num_requests * per_split * splits
    many = shape.num_query_tokens > setup.max_num_requests
    return max(reserved, 8 * 2**30 if many else 0)


def _carry_over(frozen: FrozenSplits) -> bool:
    """The default is vLLM's split rule at max_model_len."""
    rule = SplitRule.of_vllm(frozen.sm_count)
    return still_better(
        frozen.splits,
        table_default=rule.splits(frozen.measured_max_model_len),
        engine_default=rule.splits(frozen.max_model_len),
    )


BACKEND = VllmBackend(
    name="TRITON_MLA",
    aliases=("triton_mla",),
    module="triton_mla",
    interpreted=True,
    package="triton",
    decode_parts=(
        Source("v1/attention/ops/triton_decode_attention.py"),
        Source(
            "v1/attention/backends/mla/triton_mla.py",
            (
                *("_compute_num_kv_splits", "_MIN_WORK_PER_SPLIT", "_SPLIT_OCCUPANCY_MULTIPLIER"),
                "TritonMLAImpl.forward_mqa",
            ),
        ),
    ),
    blocks=BlockSizes((16,), multiples=True),
    # Its builder declared no CUDA graph support before.
    captured_since=(0, 22, 1),
    # 0.26 has it take single tokens, 0.32 uniform blocks; when it changed is not known, and a
    # session asks the builder itself.
    uniform_since=(0, 32),
    bounds={
        **DENSE_BOUNDS,
        "num_kv_splits": Numbers((range(1, 512 + 1),), per_sm=SPLITS_PER_SM),
        # Tiles are powers of two to Triton, and its products take 16 rows or more.
        "block_n": Numbers.of(16, 32, 64, 128, 256),
        "block_h": Numbers.of(16, 32, 64, 128),
        "num_warps": Numbers.of(1, 2, 4, 8, 16),
        "num_stages": Numbers((range(1, 5 + 1),)),
    },
    splits=Splits(knob=_knob, partial_bytes=_partial_bytes, carry_over=_carry_over, cut="tiled"),
    launcher=_launcher,
    plugin_class="mla_tune.vllm.plugin.triton_mla.TunedTritonMLABackend",
)
