"""The prefill backends that a release and a GPU really accept, by short name.

The names are those of vLLM's attention benchmark: ``fa2``, ``fa3`` and ``fa4`` are FLASH_ATTN with
that FlashAttention version, then ``flashinfer``, ``trtllm`` and ``tokenspeed`` (and ``cudnn``,
which only 0.20 has).
"""

__all__ = [
    "NEED_WORKSPACE",
    "PLANS_EACH_STEP",
    "default_prefill",
    "make_prefill",
    "prefill_instances",
    "prefill_name",
]

from typing import Any

from mla_tune.errors import InputError, UnavailableError
from mla_tune.vllm import compat
from mla_tune.vllm.observe import set_for_now

# Short name: member of vLLM's registry, FlashAttention version.
NAMES: dict[str, tuple[str, int | None]] = {
    "fa2": ("FLASH_ATTN", 2),
    "fa3": ("FLASH_ATTN", 3),
    "fa4": ("FLASH_ATTN", 4),
    "flashinfer": ("FLASHINFER", None),
    "trtllm": ("TRTLLM_RAGGED", None),
    "tokenspeed": ("TOKENSPEED_MLA", None),
}
# Those that take a part of vLLM's shared workspace.
NEED_WORKSPACE = ("flashinfer", "trtllm")
_SHORT = {member: name for name, (member, version) in NAMES.items() if version is None}

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
    instance = compat.prefill_backend_of(builder)
    return compat.prefill_in_impl(impl) if instance is None else prefill_name(instance)


def prefill_name(instance: Any) -> str:
    """The short name of a prefill backend object."""
    name = str(instance.get_name())
    if name == "FLASH_ATTN":
        return f"fa{instance.vllm_flash_attn_version}"
    return _SHORT.get(name, name.lower())


def prefill_instances(builder: Any, layer: Any, vllm_config: Any) -> dict[str, Any]:
    """Every prefill backend that can be tuned here, by short name, default first."""
    default = compat.prefill_backend_of(builder)
    if default is None:
        return {}
    found = {prefill_name(default): default}
    platform = compat.symbol("vllm.platforms", "current_platform")
    if not platform.is_cuda():
        return found
    # The others are for compute capability 10 in every release so far, and asking them means
    # importing flashinfer, which takes seconds.
    everything = platform.get_device_capability().major == 10
    for name, (member, _) in NAMES.items():
        if name in found or not (everything or member == "FLASH_ATTN"):
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
    if name not in NAMES:
        raise InputError(f"unknown prefill backend {name!r}", valid=", ".join(NAMES))
    if name in PLANS_EACH_STEP:
        raise UnavailableError(f"it is not chosen by batch: {PLANS_EACH_STEP[name]}")
    member, version = NAMES[name]
    try:
        instance = _instance(_accepted_class(member, vllm_config), version, like, vllm_config)
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
    # Only while the instance is made: an engine-wide flash_attn_version other than 3 also turns
    # off the decode scheduling of FLASH_ATTN_MLA (fa_aot_schedule) on compute capability 9.
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
