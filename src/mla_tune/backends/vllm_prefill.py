"""The prefill backends that a release and a GPU really accept, by short name.

The names are those of vLLM's attention benchmark: ``fa2``, ``fa3`` and ``fa4`` are FLASH_ATTN with
that FlashAttention version, then ``flashinfer``, ``trtllm`` and ``tokenspeed`` (and ``cudnn``,
which only 0.20 has).
"""

__all__ = ["default_prefill", "prefill_instances", "prefill_name"]

from collections.abc import Iterator
from typing import Any

from mla_tune.backends import vllm_compat as compat

NAMES = {
    "FLASHINFER": "flashinfer",
    "TRTLLM_RAGGED": "trtllm",
    "TOKENSPEED_MLA": "tokenspeed",
}
FLASH_ATTN_VERSIONS = (2, 3, 4)
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
    return NAMES.get(name, name.lower())


def prefill_instances(builder: Any, layer: Any, vllm_config: Any) -> dict[str, Any]:
    """Every prefill backend that the release and the GPU accept, by short name, default first."""
    default = compat.prefill_backend_of(builder)
    if default is None:
        return {}
    found = {prefill_name(default): default}
    platform = compat.symbol("vllm.platforms", "current_platform")
    if not platform.is_cuda():
        return found
    for cls in _accepted_prefill_classes(platform, vllm_config):
        versions = FLASH_ATTN_VERSIONS if cls.get_name() == "FLASH_ATTN" else (None,)
        for version in versions:
            instance = _prefill_instance(cls, version, layer, vllm_config)
            if instance is not None:
                found.setdefault(prefill_name(instance), instance)
    return found


def _accepted_prefill_classes(platform: Any, vllm_config: Any) -> Iterator[Any]:
    registry = compat.symbol(f"{_PACKAGE}.registry", "MLAPrefillBackendEnum")
    text = vllm_config.model_config.hf_text_config
    wanted = compat.symbol(f"{_PACKAGE}.selector", "MLAPrefillSelectorConfig")(
        dtype=vllm_config.model_config.dtype,
        mla_dimensions=compat.symbol(f"{_PACKAGE}.base", "MLADimensions")(
            qk_nope_head_dim=text.qk_nope_head_dim,
            qk_rope_head_dim=text.qk_rope_head_dim,
            v_head_dim=text.v_head_dim,
        ),
    )
    capability = platform.get_device_capability()
    # The others are for compute capability 10 in every release so far, and asking them means
    # importing flashinfer, which takes seconds.
    names = ("FLASH_ATTN", *NAMES) if capability.major == 10 else ("FLASH_ATTN",)
    for name in names:
        if name not in registry.__members__:
            continue
        try:
            cls = registry[name].get_class()
            accepted = not cls.validate_configuration(capability, wanted)
        except Exception:  # a broken optional package fails in its own ways
            continue
        if accepted:
            yield cls


def _prefill_instance(cls: Any, version: int | None, layer: Any, vllm_config: Any) -> Any | None:
    """An instance of ``cls`` on FlashAttention ``version``, or None when it does not run here."""
    if version is not None:
        interface = "vllm.vllm_flash_attn.flash_attn_interface"
        if not compat.symbol(interface, "is_fa_version_supported")(version):
            return None
        # vLLM only looks whether the file is there; it imports the cute DSL at the first call.
        if version == 4 and not compat.imports("vllm.vllm_flash_attn.cute.interface"):
            return None
    config = vllm_config.attention_config
    # Only while the instance is made: an engine-wide flash_attn_version other than 3 also turns
    # off the decode scheduling of FLASH_ATTN_MLA (fa_aot_schedule) on compute capability 9.
    before = config.flash_attn_version
    config.flash_attn_version = before if version is None else version
    try:
        return cls(
            num_heads=layer.num_heads,
            scale=layer.scale,
            kv_lora_rank=layer.kv_lora_rank,
            qk_nope_head_dim=layer.qk_nope_head_dim,
            qk_rope_head_dim=layer.qk_rope_head_dim,
            v_head_dim=layer.v_head_dim,
            vllm_config=vllm_config,
        )
    except (ImportError, AssertionError, NotImplementedError, RuntimeError, ValueError):
        return None
    finally:
        config.flash_attn_version = before
