"""The prefill backends that a release and a GPU really accept, by short name.

The names are those of vLLM's attention benchmark: ``fa2``, ``fa3`` and ``fa4`` are FLASH_ATTN with
that FlashAttention version, then ``flashinfer``, ``trtllm`` and ``tokenspeed`` (and ``cudnn``,
which only 0.20 has).
"""

__all__ = [
    "NEED_WORKSPACE",
    "PLANS_EACH_STEP",
    "PREFILL_BACKENDS",
    "PREFILL_PARTS",
    "SPARSE_PREFILL_PARTS",
    "Kind",
    "default_prefill",
    "engine_setting",
    "make_prefill",
    "owner_name",
    "packages_of",
    "prefill_instances",
    "prefill_name",
    "turns_off_decode_schedule",
]

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mla_tune.errors import InputError, UnavailableError
from mla_tune.vllm import compat
from mla_tune.vllm.compat import prefills
from mla_tune.vllm.digests import Binary, Part, Source
from mla_tune.vllm.observe import set_for_now


@dataclass(frozen=True)
class Kind:
    """One prefill backend of vLLM.

    Attributes:
        member: of vLLM's registry of prefill backends; None where it cannot be made by name.
        version: of FlashAttention.
        package: what its kernels come with, where that is not vLLM's own wheel and not pinned
            exactly by it.
        needs_workspace: whether it takes a part of vLLM's shared workspace.
    """

    member: str | None = None
    version: int | None = None
    package: str | None = None
    needs_workspace: bool = False


# By short name: those of vLLM's attention benchmark, then those of 0.33's other platforms.
PREFILL_BACKENDS: dict[str, Kind] = {
    "fa2": Kind("FLASH_ATTN", version=2),
    "fa3": Kind("FLASH_ATTN", version=3),
    "fa4": Kind("FLASH_ATTN", version=4),
    "flashinfer": Kind("FLASHINFER", package="flashinfer", needs_workspace=True),
    "trtllm": Kind("TRTLLM_RAGGED", package="flashinfer", needs_workspace=True),
    "tokenspeed": Kind("TOKENSPEED_MLA"),
    "cudnn": Kind(package="flashinfer"),
    "rocm_aiter_fa": Kind(),
    "cpu_sdpa_mla": Kind(),
    "zen_cpu_sdpa_mla": Kind(),
}
# Those that can be made by name.
_MADE = {name: kind for name, kind in PREFILL_BACKENDS.items() if kind.member is not None}
NEED_WORKSPACE = tuple(name for name, kind in _MADE.items() if kind.needs_workspace)
_SHORT = {kind.member: name for name, kind in _MADE.items() if kind.version is None}

# FLASHINFER copies the lengths to the host and plans anew while the metadata of a step is built,
# once for all layers and once more for each chunk of context. One layer is what is timed here, so
# its latency would leave that out, and nobody knows over how many layers to spread it. Its
# wrappers also take 8 MiB of device memory for each of 33 plans, at the first step, after vLLM
# has given the rest to the KV cache.
PLANS_EACH_STEP = {
    "flashinfer": "it plans at every step, outside the layer, which one layer's latency leaves out"
}

_PACKAGE = "vllm.v1.attention.backends.mla.prefill"


def default_prefill(builder: Any, impl: Any) -> str | None:
    """The short name of the prefill implementation in use without any knob, if there is one."""
    instance = prefills.backend_of(builder)
    return owner_name(impl if instance is None else instance)


def owner_name(owner: Any) -> str | None:
    """The short name of a prefill backend object, or of what 0.20 has in an impl instead."""
    return prefill_name(owner) if hasattr(owner, "get_name") else prefills.in_impl(owner)


def prefill_name(instance: Any) -> str:
    """The short name of a prefill backend object."""
    name = str(instance.get_name())
    if name == "FLASH_ATTN":
        return f"fa{instance.vllm_flash_attn_version}"
    return _SHORT.get(name, name.lower())


PREFILL_PARTS: tuple[Part, ...] = (
    Source(
        "model_executor/layers/attention/mla_attention.py",
        (
            *("MLAAttention.forward_impl", "MLAAttention._v_up_proj"),
            *("MLACommonBaseImpl.forward_mha", "MLACommonBaseImpl._compute_prefill_context"),
            *("MLACommonImpl.forward_mha", "MLACommonImpl._compute_prefill_context"),
            *("MLACommonMetadataBuilder.build", "build_mla_chunked_context_metadata"),
        ),
    ),
    Source("v1/attention/backends/mla/prefill/flash_attn.py", called="prefill/flash_attn.py"),
    Source(
        "v1/attention/backends/utils.py",
        ("split_decodes_and_prefills",),
        called="split_decodes_and_prefills",
    ),
    Binary("vllm_flash_attn/_vllm_fa2_C*.so"),
    Binary("vllm_flash_attn/_vllm_fa3_C*.so"),
)
"""What decides how fast the prefill path is with vLLM's own wheel.

The kernels of the other prefill backends come with packages; see `packages_of`.
"""

SPARSE_PREFILL_PARTS: tuple[Part, ...] = (
    *PREFILL_PARTS,
    Source("model_executor/layers/attention/sparse_mla_attention.py"),
)


def packages_of(names: Iterable[str]) -> set[str]:
    """The packages beside vLLM that the kernels of the prefill backends ``names`` come with."""
    kinds = [PREFILL_BACKENDS[name] for name in names if name in PREFILL_BACKENDS]
    return {kind.package for kind in kinds if kind.package}


def engine_setting(name: str, release: tuple[int, ...]) -> str | None:
    """How ``--attention-config`` of ``release`` names a prefill backend; None: it cannot."""
    kind = PREFILL_BACKENDS.get(name, Kind())
    if kind.version is not None:
        return f"flash_attn_version={kind.version}"
    return prefills.setting(name, kind.member, release)


def turns_off_decode_schedule(name: str) -> bool:
    """Whether the engine-wide setting for ``name`` also changes how FLASH_ATTN_MLA decodes.

    A FlashAttention version other than 3 turns its schedule off (``fa_aot_schedule``) on compute
    capability 9.
    """
    return PREFILL_BACKENDS[name].version not in (None, 3)


def prefill_instances(builder: Any, layer: Any, vllm_config: Any) -> dict[str, Any]:
    """Every prefill backend that can be tuned here, by short name, default first."""
    default = prefills.backend_of(builder)
    if default is None:
        return {}
    found = {prefill_name(default): default}
    platform = compat.symbol("vllm.platforms", "current_platform")
    if not platform.is_cuda():
        return found
    # The others are for compute capability 10 in every release so far, and asking them means
    # importing flashinfer, which takes seconds.
    everything = platform.get_device_capability().major == 10
    for name, kind in _MADE.items():
        if name in found or not (everything or kind.version is not None):
            continue
        try:
            found[name] = make_prefill(name, layer, vllm_config)
        except UnavailableError:
            continue
    return found


def make_prefill(name: str, like: Any, vllm_config: Any) -> Any:
    """Make the prefill backend called ``name`` for the dimensions of ``like``.

    Args:
        name: a short name.
        like: anything with the attributes num_heads, scale, kv_lora_rank, qk_nope_head_dim,
            qk_rope_head_dim and v_head_dim: a layer, an impl, or another prefill backend.
        vllm_config: the engine's; the current one while this runs.

    Raises:
        InputError: no such name.
        UnavailableError: it does not run here, or cannot be chosen batch by batch; says why.
    """
    if name not in _MADE:
        raise InputError(f"unknown prefill backend {name!r}", valid=", ".join(_MADE))
    if name in PLANS_EACH_STEP:
        raise UnavailableError(f"it is not chosen by batch: {PLANS_EACH_STEP[name]}")
    kind = _MADE[name]
    try:
        cls = _accepted_class(str(kind.member), vllm_config)
        instance = _instance(cls, kind.version, like, vllm_config)
    except UnavailableError:
        raise
    except Exception as error:  # a broken optional package fails in its own ways
        raise UnavailableError(f"{type(error).__name__}: {error}") from error
    if prefill_name(instance) != name:
        raise UnavailableError(f"vLLM takes {prefill_name(instance)} for {name} here")
    return instance


def _accepted_class(member: str, vllm_config: Any) -> Any:
    """VLLM's class for a registry member, if it accepts GPU, dtype and dimensions."""
    registry = compat.symbol(f"{_PACKAGE}.registry", "MLAPrefillBackendEnum")
    if member not in registry.__members__:
        raise UnavailableError(f"this vLLM has no prefill backend {member}")
    text = vllm_config.model_config.hf_text_config
    wanted = compat.symbol(f"{_PACKAGE}.selector", "MLAPrefillSelectorConfig")(
        dtype=vllm_config.model_config.dtype,
        mla_dimensions=compat.symbol(f"{_PACKAGE}.base", "MLADimensions")(
            qk_nope_head_dim=text.qk_nope_head_dim,
            qk_rope_head_dim=text.qk_rope_head_dim,
            v_head_dim=text.v_head_dim,
        ),
    )
    platform = compat.symbol("vllm.platforms", "current_platform")
    cls = registry[member].get_class()
    if reasons := cls.validate_configuration(platform.get_device_capability(), wanted):
        raise UnavailableError(f"{member}: {'; '.join(reasons)}")
    return cls


def _instance(cls: Any, version: int | None, like: Any, vllm_config: Any) -> Any:
    """An instance of ``cls``, on FlashAttention ``version`` where it has one."""
    if version is not None:
        interface = "vllm.vllm_flash_attn.flash_attn_interface"
        if not compat.symbol(interface, "is_fa_version_supported")(version):
            raise UnavailableError(f"FlashAttention {version} does not run on this GPU")
        # vLLM only looks whether the file is there; it imports the cute DSL at the first call.
        if version == 4 and not compat.imports("vllm.vllm_flash_attn.cute.interface"):
            raise UnavailableError("FlashAttention 4 does not import here")
    config = vllm_config.attention_config
    # Only while the instance is made, see `turns_off_decode_schedule`.
    before = config.flash_attn_version
    wanted = before if version is None else version
    with set_for_now(config, "flash_attn_version", wanted):
        return cls(
            num_heads=like.num_heads,
            scale=like.scale,
            kv_lora_rank=like.kv_lora_rank,
            qk_nope_head_dim=like.qk_nope_head_dim,
            qk_rope_head_dim=like.qk_rope_head_dim,
            v_head_dim=like.v_head_dim,
            vllm_config=vllm_config,
        )
