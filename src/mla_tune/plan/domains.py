"""What holds for each backend in every release, known without vLLM and torch.

That is what its knobs can be at all, the KV cache blocks it takes, and where its kernels come
from. A search tries some of a knob's values (`mla_tune.plan.space.KnobDomain`). A value outside of
all of them is a slip of the pen or comes from another program, and must reach no engine: there it
would be a kernel's argument, or decide on the size of a workspace.
"""

__all__ = ["DOMAINS", "Domain", "default_capture_size"]

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mla_tune.errors import InputError
from mla_tune.plan.plan import Plan
from mla_tune.versions import release_numbers

# vLLM's largest default is 1024, and no search tries more: attending over latents costs several
# times the work. 8192 leaves room, and is far from where tokens x heads overflow.
THRESHOLDS = (range(1, 8192 + 1),)

# The names of vLLM's attention benchmark, then those of 0.33's other platforms.
PREFILL_BACKENDS = (
    *("fa2", "fa3", "fa4", "flashinfer", "trtllm", "tokenspeed", "cudnn"),
    *("rocm_aiter_fa", "cpu_sdpa_mla", "zen_cpu_sdpa_mla"),
)
FLASHINFER_PREFILLS = ("flashinfer", "trtllm", "cudnn")


@dataclass(frozen=True)
class Domain:
    """The bounds of one backend's knobs; an empty one says that it has no such knob.

    Attributes:
        thresholds: of ``reorder_batch_threshold``, in tokens.
        splits: of ``num_kv_splits``.
        splits_per_sm: how many splits a streaming multiprocessor takes, where that is a bound too.
        prefill_backends: the names of ``prefill_backend``.
        package: what the decode kernels come with, where that is not vLLM's own wheel.
        block_sizes: tokens in a block of the KV cache; the first is what vLLM chooses by itself.
            Empty where the backend is not vLLM's.
        block_multiples: whether multiples of the first are taken as well.
    """

    thresholds: tuple[range, ...] = THRESHOLDS
    splits: tuple[range, ...] = ()
    splits_per_sm: int | None = None
    prefill_backends: tuple[str, ...] = PREFILL_BACKENDS
    package: str | None = None
    block_sizes: tuple[int, ...] = ()
    block_multiples: bool = False

    @property
    def block_size(self) -> int | None:
        """Tokens in a block where ``--block-size`` is not given (``get_preferred_block_size``)."""
        return self.block_sizes[0] if self.block_sizes else None

    def takes_block_size(self, block_size: int) -> bool:
        """Whether the KV cache may have blocks of ``block_size`` tokens."""
        if self.block_multiples and block_size % self.block_sizes[0] == 0:
            return True
        return block_size in self.block_sizes

    def block_sizes_told(self) -> str:
        """The valid block sizes, for a message."""
        multiples = "multiples of " if self.block_multiples else ""
        return multiples + " or ".join(map(str, self.block_sizes))

    @property
    def is_vllm(self) -> bool:
        """Whether the backend is one of vLLM's."""
        return bool(self.block_sizes)

    @property
    def most_splits(self) -> int:
        """The largest ``num_kv_splits`` on any device."""
        return max(values[-1] for values in self.splits)

    def outside(self, plan: Plan, sm_count: int | None) -> Iterator[tuple[str, str]]:
        """Each knob of ``plan`` that is out of bounds, and what is valid for it.

        ``sm_count`` is of the GPU that the plan is for; None on a CPU.
        """
        numbers = {
            "reorder_batch_threshold": self.thresholds,
            "num_kv_splits": self._splits_on(sm_count),
        }
        for knob, value in plan.items():
            if knob == "prefill_backend":
                if value not in self.prefill_backends:
                    yield knob, ", ".join(self.prefill_backends)
            else:
                yield from _outside(knob, value, numbers.get(knob, ()))

    def _splits_on(self, sm_count: int | None) -> tuple[range, ...]:
        if self.splits_per_sm is None or sm_count is None:
            return self.splits
        most = self.splits_per_sm * sm_count
        return tuple(range(values.start, min(values.stop, most + 1)) for values in self.splits)

    def packages(self, plans: Iterable[Plan]) -> set[str]:
        """The packages beside vLLM whose version decides what ``plans`` are worth."""
        found = {self.package} if self.package else set()
        if any(plan.get("prefill_backend") in FLASHINFER_PREFILLS for plan in plans):
            found.add("flashinfer")
        return found


def _outside(knob: str, value: int | str, bounds: tuple[range, ...]) -> Iterator[tuple[str, str]]:
    if not any(value in values for values in bounds):
        told = [str(r[0]) if len(r) == 1 else f"{r[0]} to {r[-1]}" for r in bounds]
        yield knob, " or ".join(told) or "no value: the backend has no such knob"


def default_capture_size(compute_capability: str, vllm: str) -> int:
    """``max_cudagraph_capture_size`` of an engine of 256 sequences or more that says nothing.

    vLLM derives it from ``max_num_seqs`` up to a limit, which 0.32 raised on compute capability 10.
    """
    try:
        numbers = release_numbers(vllm)
    except InputError:
        return 512  # like no other release, so nothing is compared with it
    return 1024 if compute_capability.startswith("10.") and numbers >= (0, 32, 0) else 512


DOMAINS: dict[str, Domain] = {
    "TORCH_MLA": Domain(
        splits=(range(1, 1024 + 1),),
        prefill_backends=("sdpa_flash", "sdpa_efficient", "sdpa_cudnn", "sdpa_math"),
    ),
    # vLLM's formula never gives more than two splits a multiprocessor.
    "TRITON_MLA": Domain(
        splits=(range(1, 512 + 1),),
        splits_per_sm=2,
        package="triton",
        block_sizes=(16,),
        block_multiples=True,
    ),
    # A cap; 0 is none. FlashAttention itself stops at 256.
    "FLASH_ATTN_MLA": Domain(splits=(range(256 + 1),), block_sizes=(16,), block_multiples=True),
    "FLASHMLA": Domain(block_sizes=(64,)),
    # -1 leaves the choice to the kernel, and above 16 it is reported to hang (vLLM's comment on
    # FORCE_NUM_KV_SPLITS). It decodes single tokens only.
    "CUTLASS_MLA": Domain(
        thresholds=(), splits=(range(-1, 0), range(1, 16 + 1)), block_sizes=(128,)
    ),
    "FLASHINFER_MLA": Domain(package="flashinfer", block_sizes=(32, 64)),
    # Its package is pinned exactly by each vLLM release, which tells it.
    "TOKENSPEED_MLA": Domain(block_sizes=(32, 64)),
    "FLASHMLA_SPARSE": Domain(block_sizes=(64,)),
    "FLASH_ATTN_MLA_SPARSE": Domain(block_sizes=(64,), block_multiples=True),
    "FLASHINFER_MLA_SPARSE": Domain(package="flashinfer", block_sizes=(32,), block_multiples=True),
}
