"""Building the parts of a session: config, process group, layer, impl, builder."""

__all__ = ["Parts", "SessionBackend", "activation_dtype", "build_parts"]

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

from mla_tune.errors import MlaTuneError, UnavailableError
from mla_tune.plan.blocks import BlockSizes
from mla_tune.plan.bounds import Bounds, outside
from mla_tune.plan.plan import Plan
from mla_tune.quantization import UNQUANTIZED
from mla_tune.session import Setup
from mla_tune.shapes import MlaDimensions
from mla_tune.vllm import compat, workspace
from mla_tune.vllm.compat import layers
from mla_tune.vllm.prefill import default_prefill, prefill_instances
from mla_tune.vllm.session.config import (
    current_config,
    make_config,
    start_single_rank,
    use_cpu_platform,
)
from mla_tune.vllm.session.kernel_knob import KernelKnob, Launcher
from mla_tune.vllm.session.rules import SessionRules
from mla_tune.vllm.session.weights import absorbed_weight, kv_b_projection

if TYPE_CHECKING:
    import torch

PREFIX = "model.layers.0.self_attn.attn"


class SessionBackend(Protocol):
    """What a session asks of the backend that it is for; see `mla_tune.vllm.backend`."""

    @property
    def blocks(self) -> BlockSizes: ...

    @property
    def bounds(self) -> Mapping[str, Bounds]: ...

    @property
    def sparse(self) -> bool: ...

    def kernel_knobs(self, setup: Setup, impl: Any, builder: Any) -> dict[str, KernelKnob[Any]]: ...

    def launcher(self, setup: Setup) -> Launcher | None: ...

    def parts_prefills(self, setup: Setup, /) -> bool: ...


@dataclass(frozen=True)
class Parts:
    """A real layer and what belongs to it.

    ``weight`` is ``kv_b_proj``'s, ``[num_q_heads * (qk_nope_head_dim + v_head_dim),
    kv_lora_rank]``, kept apart because vLLM may drop it once it is absorbed. ``fp8_queries`` says
    whether the layer rounds the queries of its decode path to fp8. ``launcher`` sets the launch
    constants of the decode kernel; None where they cannot be set.
    """

    device: "torch.device"
    dtype: "torch.dtype"
    vllm_config: Any
    layer: Any
    impl: Any
    builder: Any
    weight: "torch.Tensor"
    block_size: int
    sparse: bool
    prefill_instances: dict[str, Any]
    rules: SessionRules
    fp8_queries: bool
    launcher: Launcher | None = None


def build_parts(setup: Setup, backend: SessionBackend) -> Parts:
    """Build the layer of ``setup`` as a model would.

    ``backend`` is the one that ``setup`` names.

    Raises:
        UnavailableError: this vLLM or this GPU cannot; says what failed.
    """
    try:
        return _build(setup, backend)
    except MlaTuneError:
        raise
    except (
        AssertionError,
        AttributeError,
        ImportError,
        NotImplementedError,
        TypeError,
        ValueError,
    ) as error:
        release = ".".join(map(str, compat.release()))
        raise UnavailableError(
            f"{setup.backend} of vLLM {release} cannot be built for {setup.model}, KV dtype "
            f"{setup.kv_cache_dtype}: {type(error).__name__}: {error}"
        ) from error


def _build(setup: Setup, backend: SessionBackend) -> Parts:
    device = _device(setup.device)
    dtype = activation_dtype(device)
    backend_cls = compat.backend_class(setup.backend)
    block_size, sparse = _block_size(setup, backend.blocks, backend_cls), backend.sparse
    vllm_config = make_config(setup, block_size, str(dtype).removeprefix("torch."), sparse=sparse)
    with current_config(vllm_config), _defaults(dtype, device):
        start_single_rank(device)
        if device.type == "cuda":
            workspace.start_workspace(device)
        indexer = _indexer(setup, device) if sparse else None
        kv_b_proj, weight = kv_b_projection(setup, dtype, device)
        layer = _layer(setup.model, backend_cls, vllm_config, kv_b_proj, indexer)
        layer.process_weights_after_loading(dtype)
        if setup.quantization != UNQUANTIZED:
            weight = absorbed_weight(layer, kv_b_proj, weight)
        spec = layer.get_kv_cache_spec(vllm_config)
        if spec.block_size != block_size:
            # vLLM's CPU platform overrides what it is told.
            raise UnavailableError(
                f"{setup.backend}: vLLM made blocks of {spec.block_size} tokens here, where "
                f"{block_size} were asked for"
            )
        builder = backend_cls.get_builder_cls()(spec, [PREFIX], vllm_config, device)
        instances = prefill_instances(builder, layer, vllm_config)
    launcher = backend.launcher(setup)
    launches = () if launcher is None or not setup.launches else launcher.tried(device)
    rules = replace(_rules(setup, backend, layer, builder, instances), launches=launches)
    refuse_out_of_bounds(setup.backend, backend.bounds, rules)
    return Parts(
        device=device,
        dtype=dtype,
        vllm_config=vllm_config,
        layer=layer,
        impl=layer.impl,
        builder=builder,
        weight=weight,
        block_size=block_size,
        sparse=sparse,
        prefill_instances=instances,
        rules=rules,
        fp8_queries=layers.takes_fp8_queries(layer),
        launcher=launcher,
    )


def _device(name: str) -> "torch.device":
    """Make the device called ``name`` the one that torch and vLLM work on."""
    import torch

    device = torch.device(name)
    if device.type == "cpu":
        use_cpu_platform()
        return device
    device = torch.device("cuda", device.index or 0)
    torch.cuda.set_device(device)
    return device


def activation_dtype(device: "torch.device") -> "torch.dtype":
    """Return bfloat16, as models are served; float16 on a CPU.

    In bfloat16 Triton's interpreter returns garbage for the decode kernel (3.7 and 3.9).
    """
    import torch

    return torch.float16 if device.type == "cpu" else torch.bfloat16


def _block_size(setup: Setup, blocks: BlockSizes, backend_cls: Any) -> int:
    """The setup's block size, or what vLLM chooses, after checking that a table would say so."""
    default = compat.symbol("vllm.config", "CacheConfig").DEFAULT_BLOCK_SIZE
    preferred = int(backend_cls.get_preferred_block_size(default))
    if setup.block_size is None and preferred != blocks.own:
        raise UnavailableError(
            f"{setup.backend}: this vLLM chooses blocks of {preferred} tokens, and a table without "
            f"a block size means {blocks.own}",
            remedy=f"write 'engine: {{block_size: {preferred}}}' into the shapes file",
        )
    block_size = setup.block_size or preferred
    if not backend_cls.supports_block_size(block_size):
        raise UnavailableError(
            f"{setup.backend} of this vLLM does not take blocks of {block_size} tokens",
            valid=str(blocks),
        )
    return block_size


@contextmanager
def _defaults(dtype: "torch.dtype", device: "torch.device") -> Iterator[None]:
    """Make ``dtype`` and ``device`` torch's defaults, as vLLM does while it builds a model."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def _indexer(setup: Setup, device: "torch.device") -> SimpleNamespace:
    """What a sparse impl reads of an indexer: the buffer, which each batch brings its own of."""
    import torch

    rows = max(setup.max_num_query_tokens, setup.max_num_requests)
    buffer = torch.full((rows, setup.index_topk), -1, dtype=torch.int32, device=device)
    return SimpleNamespace(topk_indices_buffer=buffer, topk_tokens=setup.index_topk)


def _layer(
    model: MlaDimensions, backend_cls: Any, vllm_config: Any, kv_b_proj: Any, indexer: Any | None
) -> Any:
    arguments = {
        "num_heads": model.num_q_heads,
        "scale": model.softmax_scale,
        "qk_nope_head_dim": model.qk_nope_head_dim,
        "qk_rope_head_dim": model.qk_rope_head_dim,
        "v_head_dim": model.v_head_dim,
        "q_lora_rank": None,
        "kv_lora_rank": model.kv_lora_rank,
        "kv_b_proj": kv_b_proj,
        "cache_config": vllm_config.cache_config,
        "quant_config": None,
        "prefix": PREFIX,
    }
    return layers.attention_layer(backend_cls, arguments, indexer)


def _rules(
    setup: Setup,
    backend: SessionBackend,
    layer: Any,
    builder: Any,
    instances: dict[str, Any],
) -> SessionRules:
    """Ask layer and builder what the plans depend on."""
    sparse = layers.is_sparse(layer.impl)
    default = default_prefill(builder, layer.impl)
    names = tuple(instances) or ((default,) if default is not None else ())
    return SessionRules(
        mode=setup.mode,
        threshold=int(builder.reorder_batch_threshold or 1),
        has_threshold=layers.query_len_support(builder) != "single_only",
        uniform=layers.decodes_uniform(builder),
        prefill_backends=names,
        kernel_knobs=backend.kernel_knobs(setup, layer.impl, builder),
        topk=setup.index_topk if sparse else None,
        sparse_prefill=layers.sparse_prefill_path(layer) if sparse else "mha",
        sparse_split=sparse and backend.parts_prefills(setup),
    )


def refuse_out_of_bounds(backend: str, bounds: Mapping[str, Bounds], rules: SessionRules) -> None:
    """Make sure that what the default and its rivals are called can stand in a table.

    Raises:
        UnavailableError: a release brings a name or a threshold that no table may have.
    """
    threshold = Plan(reorder_batch_threshold=rules.threshold) if rules.has_threshold else Plan()
    named = [threshold.having(prefill_backend=name) for name in rules.prefill_backends]
    for plan in named or [threshold]:
        for knob, valid in outside(bounds, plan, None):
            raise UnavailableError(
                f"{backend} of this vLLM has {knob} {plan[knob]!r}, which is not known here",
                valid=valid,
                remedy="report the release",
            )
