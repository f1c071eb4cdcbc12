from types import SimpleNamespace
from typing import Any

import pytest

from mla_tune.quantization import quantization_of


def linear(kind: str, base: str = "LinearMethodBase", **method: Any) -> Any:
    """A layer with a method of vLLM's class ``kind``."""
    cls = type(kind, (type(base, (), {}),), {})
    found = cls()
    found.__dict__.update(method)
    return SimpleNamespace(quant_method=found)


def config(scheme: str) -> Any:
    return SimpleNamespace(activation_scheme=scheme)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (SimpleNamespace(quant_method=None), "none"),
        (linear("UnquantizedLinearMethod"), "none"),
        (linear("ZenLinearMethod", "UnquantizedLinearMethod"), "none"),
        (linear("Fp8LinearMethod", weight_block_size=None), "fp8_per_tensor"),
        (linear("Fp8OnlineLinearMethod", "Fp8LinearMethod"), "fp8_per_tensor"),
        (linear("Fp8PerTensorOnlineLinearMethod"), "fp8_per_tensor"),
        (linear("Fp8LinearMethod", weight_block_size=[128, 128]), "fp8_per_block"),
        (linear("Fp8PerBlockOnlineLinearMethod", weight_block_size=[128, 128]), "fp8_per_block"),
        (linear("Fp8LinearMethod", weight_block_size=[64, 128]), "Fp8LinearMethod [64, 128]"),
        (linear("Fp8LinearMethod", quant_config=config("static")), "Fp8LinearMethod static"),
        (linear("AWQMarlinLinearMethod"), "AWQMarlinLinearMethod"),
    ],
)
def test_a_layer_tells_how_its_weights_are_quantized(layer: Any, name: str) -> None:
    assert quantization_of(layer) == name


def test_a_lora_wrapper_is_looked_through() -> None:
    wrapped = SimpleNamespace(base_layer=linear("Fp8LinearMethod", weight_block_size=[128, 128]))
    assert quantization_of(wrapped) == "fp8_per_block"


def test_two_schemes_of_compressed_tensors_have_two_names() -> None:
    layer = linear("CompressedTensorsLinearMethod")
    layer.scheme = type("CompressedTensorsW8A8Fp8", (), {})()
    assert quantization_of(layer) == "CompressedTensorsLinearMethod CompressedTensorsW8A8Fp8"
