"""TORCH_MLA: the portable backend, on CPU and on any GPU that PyTorch drives.

All three knobs of vLLM's backends, with the same meaning, over a paged latent cache. What is
timed holds the work around each path too: absorption, up-projection and the gather.
"""

__all__ = ["TorchMla"]

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mla_tune.environment import Environment
from mla_tune.plan.bounds import THRESHOLDS, Bounds, Names, Numbers
from mla_tune.plan.compilation import NOTHING_COMPILED, Compilation
from mla_tune.plan.failure import FailureKind, PlanFailure
from mla_tune.plan.kernel_resources import KernelResources
from mla_tune.plan.plan import Plan
from mla_tune.plan.space import KnobDomain, PlanSpace, effective_plans
from mla_tune.quantization import UNQUANTIZED
from mla_tune.session import Reference, Session, Setup
from mla_tune.shapes import BatchShape
from mla_tune.torch_mla.memory import LONGEST_DECODE_QUERY, shape_bytes

if TYPE_CHECKING:
    import torch

    from mla_tune.torch_mla.attention import PagedCache

BLOCK_SIZE = 64
# vLLM up to 0.19 cut every decode into four; it stands here for "untuned".
DEFAULT_SPLITS = 4
SPLITS = (1, 2, 4, 8, 16, 32, 64)
# sdpa_math writes out all scores of a request; beyond this it is not offered.
LARGEST_SCORES_BYTES = 2 * 2**30
REFERENCE_ROWS = 64
PREFILL_BACKENDS = ("sdpa_flash", "sdpa_efficient", "sdpa_cudnn", "sdpa_math")


class TorchMla:
    """The facts of TORCH_MLA."""

    name = "TORCH_MLA"
    aliases = ("torch_mla",)
    is_vllm = False
    sparse = False
    blocks = None
    cut = None
    plugin_class = None
    bounds: Mapping[str, Bounds] = {
        "reorder_batch_threshold": THRESHOLDS,
        "num_kv_splits": Numbers((range(1, 1024 + 1),)),
        "prefill_backend": Names(PREFILL_BACKENDS),
    }
    knobs = ("reorder_batch_threshold", "num_kv_splits", "prefill_backend")
    modes = ("eager",)
    kv_cache_dtypes = ("auto", "bfloat16")
    quantizations = (UNQUANTIZED,)

    def packages(self, plans: Iterable[Plan]) -> set[str]:
        """None beside torch, which every table names."""
        del plans
        return set()

    def follows_capture_size(self, mode: str) -> bool:
        """It knows no captures."""
        del mode
        return False

    def decided_by(self, mode: str) -> tuple[str, ...]:
        """By torch, whose version every table names."""
        del mode
        return ()

    def digests(self) -> dict[str, str]:
        return {}

    def unavailable(self, environment: Environment) -> str | None:
        """It runs wherever torch does, and torch is what looked at ``environment``."""
        del environment
        return None

    def supports(self, mode: str, shape: BatchShape, capture_size: int | None = None) -> str | None:
        """Why ``shape`` cannot be tuned in ``mode``; any can, eagerly."""
        del shape, capture_size
        return None if mode == "eager" else "TORCH_MLA is not captured into CUDA graphs"

    def estimate_bytes(self, setup: Setup, shapes: Sequence[BatchShape]) -> int:
        """Every shape has a cache of its own."""
        return sum(shape_bytes(setup, shape) for shape in shapes)

    def open(self, setup: Setup) -> Session:
        return TorchMlaSession(setup)


@dataclass(frozen=True)
class _Batch:
    """The inputs of one shape: ``query`` is ``[num_query_tokens, num_q_heads, qk_head_dim]``."""

    requests: tuple[tuple[int, int], ...]
    query: "torch.Tensor"
    kv_lens: "torch.Tensor"
    cache: "PagedCache"
    output: "torch.Tensor"


class TorchMlaSession:
    """Weights and inputs of TORCH_MLA on one device."""

    def __init__(self, setup: Setup) -> None:
        import torch

        from mla_tune.torch_mla.attention import Weights

        self.setup = setup
        self.device = torch.device(setup.device)
        self.dtype = torch.float32 if self.device.type == "cpu" else torch.bfloat16
        cache_dtypes = {"auto": self.dtype, "bfloat16": torch.bfloat16}
        self.cache_dtype = cache_dtypes[setup.kv_cache_dtype]
        self._generator = torch.Generator(device=self.device).manual_seed(0)
        self.weights = Weights.random(setup.model, self.dtype, self._generator)
        self.prefill_backends = _working_prefill_backends(self.device, self.dtype)
        self._batches: dict[BatchShape, _Batch] = {}

    def plan_space(self, shapes: Sequence[BatchShape]) -> PlanSpace:
        """All effective plans; the default cuts into four and prefills as PyTorch would choose."""
        offered = tuple(
            name
            for name in self.prefill_backends
            if name != "sdpa_math"
            or all(self._scores_bytes(shape) <= LARGEST_SCORES_BYTES for shape in shapes)
        ) or ("sdpa_math",)
        lens = {query_len for shape in shapes for query_len in shape.query_lens}
        domain = KnobDomain(
            default=_default(offered[0]),
            tried={
                "reorder_batch_threshold": sorted(n for n in lens if n <= LONGEST_DECODE_QUERY),
                "num_kv_splits": SPLITS,
                "prefill_backend": offered,
            },
        )
        return effective_plans(domain, shapes, _execution)

    def _scores_bytes(self, shape: BatchShape) -> int:
        longest = max(g.count * g.query_len * g.kv_len for g in shape.groups)
        return longest * self.setup.model.num_q_heads * 4

    def load(self, shapes: Sequence[BatchShape]) -> None:
        self._batches = {shape: self._make_batch(shape) for shape in shapes}

    def _make_batch(self, shape: BatchShape) -> _Batch:
        import torch

        from mla_tune.torch_mla.attention import PagedCache

        model, requests = self.setup.model, tuple(shape.requests())
        counts = [math.ceil(kv_len / BLOCK_SIZE) for _, kv_len in requests]
        # Blocks out of order, as after hours of serving; block 0 is the table's padding.
        order = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(1)) + 1
        table = torch.zeros(len(requests), max(counts), dtype=torch.int64)
        for row, blocks in enumerate(order.split(counts)):
            table[row, : len(blocks)] = blocks
        blocks = self._normal(sum(counts) + 1, BLOCK_SIZE, model.latent_dim)
        query = self._normal(shape.num_query_tokens, model.num_q_heads, model.qk_head_dim)
        return _Batch(
            requests=requests,
            query=query.to(self.dtype),
            kv_lens=torch.tensor([kv_len for _, kv_len in requests], device=self.device),
            cache=PagedCache(blocks.to(self.cache_dtype), table.to(self.device)),
            output=torch.empty(
                shape.num_query_tokens,
                model.num_q_heads * model.v_head_dim,
                dtype=self.dtype,
                device=self.device,
            ),
        )

    def _normal(self, *size: int) -> "torch.Tensor":
        import torch

        return torch.randn(size, generator=self._generator, device=self.device)

    def queries(self, shape: BatchShape) -> "torch.Tensor":
        return self._batches[shape].query

    def poison_scratch(self) -> None:
        """Nothing to do: every temporary is a fresh allocation, none is kept between runs."""

    def prepare(self, shape: BatchShape, plan: Plan) -> "PreparedTorchMla":
        full = plan.over(_default(self.prefill_backends[0]))
        if full["prefill_backend"] not in self.prefill_backends:
            raise PlanFailure(
                f"prefill backend {full['prefill_backend']!r} does not run here",
                plan=plan,
                kind=FailureKind.NOT_APPLIED,
                valid=", ".join(self.prefill_backends),
            )
        return PreparedTorchMla(self, self._batches[shape], full)

    def compile(
        self, plans: Sequence[Plan], limit_s: float, tell: Callable[[Plan], None]
    ) -> Compilation:
        del plans, limit_s, tell
        return NOTHING_COMPILED

    def fp8_tokens(self, shape: BatchShape, plan: Plan) -> int:
        """None: the cache is in the activations' dtype."""
        del shape, plan
        return 0

    def projected_from(self, shape: BatchShape, plan: Plan) -> int:
        """None: the weights are in the activations' dtype."""
        del plan
        return shape.num_query_tokens

    def reference(
        self, shape: BatchShape, fp8_tokens: int = 0, projected_from: int | None = None
    ) -> Reference:
        from mla_tune.torch_mla.attention import reference

        del fp8_tokens, projected_from
        batch = self._batches[shape]
        rows = _reference_rows(batch.requests).to(self.device)
        values = reference(
            batch.query, batch.requests, rows, batch.cache, self.weights, self._scale
        )
        return Reference(rows, values)

    @property
    def _scale(self) -> float:
        return self.setup.model.softmax_scale

    def close(self) -> None:
        self._batches = {}


class PreparedTorchMla:
    """One plan for one batch; the knobs are arguments, so there is nothing to restore."""

    def __init__(self, session: TorchMlaSession, batch: _Batch, plan: Plan) -> None:
        self.output = batch.output
        self.resources: KernelResources | None = None
        self._session = session
        self._batch = batch
        self._plan = plan

    @contextmanager
    def applied(self) -> Iterator[Callable[[], None]]:
        """Yield the forward pass."""
        yield self._forward

    def _forward(self) -> None:
        """Run every run of equal requests on the path that the threshold gives it."""
        threshold = self._plan.number("reorder_batch_threshold") or 1
        first_request = first_token = 0
        requests = self._batch.requests
        while first_request < len(requests):
            query_len, kv_len = requests[first_request]
            decodes = query_len <= threshold
            last = first_request
            # Decode takes ragged KV lengths together; prefill wants equal ones.
            while last < len(requests) and (
                requests[last][0] == query_len if decodes else requests[last] == (query_len, kv_len)
            ):
                last += 1
            tokens = slice(first_token, first_token + (last - first_request) * query_len)
            self._attend(slice(first_request, last), tokens, query_len, kv_len, decodes)
            first_request, first_token = last, tokens.stop

    def _attend(
        self, rows: slice, tokens: slice, query_len: int, kv_len: int, decodes: bool
    ) -> None:
        from mla_tune.torch_mla.attention import decode, prefill

        session, batch, plan = self._session, self._batch, self._plan
        model = session.setup.model
        query = batch.query[tokens].unflatten(0, (-1, query_len))
        output = batch.output[tokens].view(*query.shape[:3], model.v_head_dim)
        common = (batch.cache, rows, session.weights, model.softmax_scale)
        if decodes:
            splits = plan.number("num_kv_splits") or DEFAULT_SPLITS
            decode(query, batch.kv_lens[rows], *common, splits, output)
        else:
            implementation = _sdpa_backend(plan.text("prefill_backend") or "sdpa_math")
            prefill(query, kv_len, *common, implementation, output)


def _default(prefill_backend: str) -> Plan:
    return Plan(
        reorder_batch_threshold=1, num_kv_splits=DEFAULT_SPLITS, prefill_backend=prefill_backend
    )


def _execution(shape: BatchShape, plan: Plan) -> Hashable:
    """What a plan comes down to: per query length its path, with splits or kernel."""
    from mla_tune.torch_mla.attention import splits_in_use

    paths: list[tuple[object, ...]] = []
    threshold = plan.number("reorder_batch_threshold") or 1
    wanted = plan.number("num_kv_splits") or DEFAULT_SPLITS
    for query_len in shape.query_lens:
        if query_len <= threshold:
            longest = max(g.kv_len for g in shape.groups if g.query_len == query_len)
            blocks = math.ceil(longest / BLOCK_SIZE)
            paths.append(("decode", splits_in_use(blocks, wanted)))
        else:
            paths.append(("prefill", plan.get("prefill_backend")))
    return tuple(paths)


def _reference_rows(requests: Sequence[tuple[int, int]]) -> "torch.Tensor":
    """Up to `REFERENCE_ROWS` tokens, always the first and the last of the batch."""
    import torch

    total = sum(query_len for query_len, _ in requests)
    return torch.linspace(0, total - 1, min(total, REFERENCE_ROWS), dtype=torch.float64).long()


def _sdpa_backend(name: str) -> "torch.nn.attention.SDPBackend":
    from torch.nn.attention import SDPBackend

    return {
        "sdpa_flash": SDPBackend.FLASH_ATTENTION,
        "sdpa_efficient": SDPBackend.EFFICIENT_ATTENTION,
        "sdpa_cudnn": SDPBackend.CUDNN_ATTENTION,
        "sdpa_math": SDPBackend.MATH,
    }[name]


def _working_prefill_backends(device: "torch.device", dtype: "torch.dtype") -> tuple[str, ...]:
    """The implementations that really run here, found by running each; PyTorch's choice first."""
    import torch

    from mla_tune.torch_mla.attention import attention

    working = []
    for name in PREFILL_BACKENDS:
        try:
            for query_len in (32, 16):
                query = torch.randn(1, 2, query_len, 192, device=device, dtype=dtype)
                key = torch.randn(1, 2, 32, 192, device=device, dtype=dtype)
                value = torch.randn(1, 2, 32, 128, device=device, dtype=dtype)
                attention(query, key, value, 1.0, _sdpa_backend(name))
        except RuntimeError:
            continue
        working.append(name)
    return tuple(working)
