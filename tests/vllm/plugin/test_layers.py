from types import SimpleNamespace
from typing import Any

import pytest

from mla_tune.vllm.plugin.layers import ServedLayers

DIMS = SimpleNamespace(kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128)


def layer(kv_cache_dtype: str = "auto", method: Any = None) -> Any:
    projection = SimpleNamespace(quant_method=method)
    return SimpleNamespace(kv_cache_dtype=kv_cache_dtype, kv_b_proj=projection)


def builder(layers: dict[str, Any], names: list[str], engine_dtype: str = "fp8") -> Any:
    """A metadata builder of an engine whose configuration says ``engine_dtype``."""
    return SimpleNamespace(
        vllm_config=SimpleNamespace(
            compilation_config=SimpleNamespace(static_forward_context=layers),
            cache_config=SimpleNamespace(cache_dtype=engine_dtype, block_size=1056),
        ),
        layer_names=names,
        kv_cache_spec=SimpleNamespace(block_size=16),
        num_heads=16,
        mla_dims=DIMS,
    )


def test_a_skipped_layer_has_the_cache_it_really_has() -> None:
    layers = {"model.0": layer("auto"), "model.1": layer("fp8")}
    assert ServedLayers.of_builder(builder(layers, ["model.0"])).kv_cache_dtype == "auto"
    assert ServedLayers.of_builder(builder(layers, ["model.1"])).kv_cache_dtype == "fp8"
    both = ServedLayers.of_builder(builder(layers, ["model.0", "model.1"]))
    assert both.kv_cache_dtype == "auto_and_fp8"


def test_a_hybrid_model_has_the_block_size_of_its_kernels() -> None:
    assert ServedLayers.of_builder(builder({"a": layer()}, ["a"])).block_size == 16


def test_weights_are_those_of_the_layers_and_not_of_the_engine() -> None:
    fp8 = type("Fp8LinearMethod", (), {"weight_block_size": [128, 128]})()
    layers = {"a": layer(method=fp8), "b": layer()}
    assert ServedLayers.of_builder(builder(layers, ["a"])).quantization == "fp8_per_block"
    assert ServedLayers.of_builder(builder(layers, ["b"])).quantization == "none"
    assert ServedLayers.of_builder(builder(layers, ["a", "b"])).quantization == (
        "fp8_per_block_and_none"
    )


def test_a_layer_that_cannot_be_found_is_no_layer_at_all() -> None:
    with pytest.raises(KeyError):
        ServedLayers.of_builder(builder({}, ["model.0"]))


def test_16_bit_names_are_the_activations() -> None:
    found = ServedLayers.of_builder(builder({"a": layer("bfloat16")}, ["a"]))
    assert found.kv_cache_dtype == "auto"
    assert found.model[0] == ("num_q_heads", 16)


def test_an_impl_tells_its_layer_before_there_is_a_builder() -> None:
    impl = SimpleNamespace(num_heads=16, **vars(layer("fp8")), **vars(DIMS))
    found = ServedLayers.of_impl(impl, block_size=16)
    assert found == ServedLayers.of_builder(builder({"a": layer("fp8")}, ["a"]))
