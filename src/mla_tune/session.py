"""What a backend family offers to the tuner: facts without a device, and sessions on one."""

__all__ = ["Backend", "Prepared", "Reference", "Session", "Setup"]

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mla_tune.environment import Environment
from mla_tune.plan.blocks import BlockSizes
from mla_tune.plan.bounds import Bounds
from mla_tune.plan.compilation import Compilation
from mla_tune.plan.kernel_resources import KernelResources
from mla_tune.plan.plan import Plan
from mla_tune.plan.space import PlanSpace
from mla_tune.quantization import UNQUANTIZED
from mla_tune.shapes import BatchShape, MlaDimensions

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Setup:
    """What a session is built for, once, and keeps for every plan and shape.

    Attributes:
        backend: the backend's name.
        model: the dimensions one GPU holds.
        kv_cache_dtype: vLLM's name for it; ``auto`` is the activations' dtype.
        mode: ``eager``, or ``graph`` for decode captured with ``max_seq_len = max_model_len``.
        max_model_len: the longest sequence the engine admits, in tokens.
        max_num_requests: the most requests of any shape to come.
        max_num_query_tokens: the most new tokens of any shape to come.
        index_topk: how many tokens a sparse backend attends to.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        quantization: of the weights, one of `mla_tune.quantization.QUANTIZATIONS`.
        block_size: tokens in a block of the KV cache; None is the backend's own.
        max_cudagraph_capture_size: the largest batch, in tokens, that the engine captures; None
            is vLLM's own. FLASH_ATTN_MLA caps its splits up to it, also outside of graphs.
        launches: whether plans with other launch constants than vLLM's are among those to try,
            where the backend has some. There are about twenty to fifty times as many then.
    """

    backend: str
    model: MlaDimensions
    kv_cache_dtype: str = "auto"
    mode: str = "eager"
    max_model_len: int = 131072
    max_num_requests: int = 256
    max_num_query_tokens: int = 8192
    index_topk: int = 2048
    device: str = "cpu"
    # Recordings of before table schema 2 leave these out.
    quantization: str = UNQUANTIZED
    block_size: int | None = None
    max_cudagraph_capture_size: int | None = None
    launches: bool = False


class Prepared(Protocol):
    """One plan made ready for one shape: metadata built, knobs known, output allocated."""

    output: "torch.Tensor"
    """``[num_query_tokens, num_q_heads * v_head_dim]``, written by every run."""
    resources: KernelResources | None
    """What its decode kernel takes of the GPU, where that is known once it was `applied`."""

    def applied(self) -> AbstractContextManager[Callable[[], None]]:
        """Set the plan's knobs, yield the forward pass, and restore what was there on the way out.

        Raises:
            PlanFailure: of kind ``not applied`` when a knob did not reach the kernel.
        """
        ...


@dataclass(frozen=True)
class Reference:
    """What the output of a shape must be, computed in float64.

    ``rows`` are the query tokens (row numbers of the output) that ``values``
    ``[len(rows), num_q_heads * v_head_dim]`` belong to: all of them, or a sample where the whole
    would be too large.
    """

    rows: "torch.Tensor"
    values: "torch.Tensor"


class Session(Protocol):
    """A backend's layer, builder, cache and inputs on one device, reused for every plan."""

    device: "torch.device"

    def plan_space(self, shapes: Sequence[BatchShape]) -> PlanSpace:
        """The effective plans that ``shapes`` can share, the untuned behaviour first."""
        ...

    def load(self, shapes: Sequence[BatchShape]) -> None:
        """Make the inputs of ``shapes`` (random, paged out of order), dropping earlier ones."""
        ...

    def queries(self, shape: BatchShape) -> "torch.Tensor":
        """The query tensor that every run of a loaded shape reads.

        The correctness check scales it in place by a power of two and back.
        """
        ...

    def poison_scratch(self) -> None:
        """Fill the workspace that kernels keep between runs with NaN, where there is one."""
        ...

    def prepare(self, shape: BatchShape, plan: Plan) -> Prepared:
        """Make ``plan`` ready for a loaded shape.

        Raises:
            PlanFailure: the backend refuses the plan.
        """
        ...

    def compile(
        self, plans: Sequence[Plan], limit_s: float, tell: Callable[[Plan], None]
    ) -> Compilation:
        """Compile the kernels of ``plans`` for the loaded shapes, on all cores.

        Nothing is done where kernels come compiled.

        Args:
            plans: which.
            limit_s: seconds that one kernel may take.
            tell: called with a plan again and again while it goes on.
        """
        ...

    def fp8_tokens(self, shape: BatchShape, plan: Plan) -> int:
        """How many leading query tokens ``plan`` computes with fp8 queries and probabilities.

        0 for kernels that read an fp8 cache but multiply in 16 bits.
        """
        ...

    def projected_from(self, shape: BatchShape, plan: Plan) -> int:
        """The first query token whose keys and values ``plan`` gets from a quantized ``kv_b_proj``.

        The number of query tokens where there is none, always so where weights are 16 bits.
        """
        ...

    def reference(
        self, shape: BatchShape, fp8_tokens: int = 0, projected_from: int | None = None
    ) -> Reference:
        """The float64 result for the inputs of a loaded shape.

        The queries of the first ``fp8_tokens`` tokens are rounded as the layer rounds them for a
        kernel that takes them in fp8. Tokens from ``projected_from`` on attend to the keys and
        values that the layer's own projection makes: its rounding is no plan's doing.
        """
        ...

    def close(self) -> None:
        """Give back the memory and any global state."""
        ...


class Backend(Protocol):
    """The facts about one backend, known without touching a device."""

    @property
    def name(self) -> str: ...

    @property
    def aliases(self) -> tuple[str, ...]:
        """Its names in vLLM's attention benchmark."""
        ...

    @property
    def is_vllm(self) -> bool:
        """Whether it is one of vLLM's."""
        ...

    @property
    def knobs(self) -> tuple[str, ...]: ...

    @property
    def bounds(self) -> Mapping[str, Bounds]:
        """Of its knobs, by name."""
        ...

    @property
    def blocks(self) -> BlockSizes | None:
        """Tokens in a block of its KV cache; None where that is no setting."""
        ...

    @property
    def sparse(self) -> bool:
        """Whether it attends to the top-k tokens that an indexer picked."""
        ...

    @property
    def cut(self) -> str | None:
        """By which of `mla_tune.plan.cut.CUTTERS` its decode kernel cuts a batch; None: unknown."""
        ...

    @property
    def plugin_class(self) -> str | None:
        """The path of the class that applies its plans inside vLLM; None where tables do not."""
        ...

    @property
    def modes(self) -> tuple[str, ...]: ...

    @property
    def kv_cache_dtypes(self) -> tuple[str, ...]: ...

    @property
    def quantizations(self) -> tuple[str, ...]:
        """Of the weights, as `Setup.quantization` names them."""
        ...

    def packages(self, plans: Iterable[Plan]) -> set[str]:
        """The packages beside vLLM whose version decides what ``plans`` are worth."""
        ...

    def follows_capture_size(self, mode: str) -> bool:
        """Whether plans of ``mode`` depend on the engine's max_cudagraph_capture_size."""
        ...

    def decided_by(self, mode: str) -> tuple[str, ...]:
        """The parts of an installation that decide how fast it is in ``mode``, by name.

        Empty where only versions tell.
        """
        ...

    def digests(self) -> dict[str, str]:
        """Digests of all such parts that are installed here, by name."""
        ...

    def unavailable(self, environment: Environment) -> str | None:
        """Why this backend cannot run in ``environment``, or None when it can.

        Cheap: looks at hardware and installed packages, and never at a device's memory.
        """
        ...

    def supports(self, mode: str, shape: BatchShape, capture_size: int | None = None) -> str | None:
        """Why ``shape`` cannot be tuned in ``mode``, or None when it can.

        In graph mode only batches that vLLM would capture count: up to ``capture_size`` tokens,
        or what it captures by itself.
        """
        ...

    def estimate_bytes(self, setup: Setup, shapes: Sequence[BatchShape]) -> int:
        """Device memory in bytes that a workload of ``shapes`` needs, before any allocation.

        They are loaded together: what they share counts once, by the one that needs most of it.
        """
        ...

    def open(self, setup: Setup) -> Session:
        """Build a session.

        Raises:
            UnavailableError: it cannot be built here; says what is missing.
        """
        ...
