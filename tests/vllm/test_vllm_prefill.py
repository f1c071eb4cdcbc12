# ruff: noqa: ARG001, ARG003, ARG005
"""Which prefill backends are offered to the tuner, over a stand-in for vLLM."""

from types import SimpleNamespace

import pytest

from mla_tune.errors import InputError, UnavailableError
from mla_tune.vllm import compat
from mla_tune.vllm.prefill import make_prefill, prefill_instances

SIZES = ("num_heads", "scale", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
LAYER = SimpleNamespace(**dict.fromkeys(SIZES, 64))


class Standin:
    reasons: tuple[str, ...] = ()

    def __init__(self, *, vllm_config, **sizes):
        assert set(sizes) == set(SIZES)
        self.vllm_flash_attn_version = vllm_config.attention_config.flash_attn_version or 4

    @classmethod
    def validate_configuration(cls, capability, wanted):
        return list(cls.reasons)


def standin(name, **changes):
    return type(name, (Standin,), {"get_name": staticmethod(lambda: name), **changes})


@pytest.fixture
def config():
    text = SimpleNamespace(qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128)
    return SimpleNamespace(
        model_config=SimpleNamespace(hf_text_config=text, dtype="bfloat16"),
        attention_config=SimpleNamespace(flash_attn_version=None),
    )


@pytest.fixture
def vllm(monkeypatch):
    """A B200 with every prefill backend of 0.33."""
    names = ("FLASH_ATTN", "FLASHINFER", "TRTLLM_RAGGED", "TOKENSPEED_MLA")
    found = SimpleNamespace(
        classes={name: standin(name) for name in names},
        capability=SimpleNamespace(major=10, minor=0),
    )

    class Members(dict):
        @property
        def __members__(self):
            return self

    symbols = {
        "current_platform": SimpleNamespace(
            is_cuda=lambda: True, get_device_capability=lambda: found.capability
        ),
        "MLAPrefillSelectorConfig": SimpleNamespace,
        "MLADimensions": SimpleNamespace,
        "is_fa_version_supported": lambda version: version in (2, 4),
    }

    def symbol(module, name):
        if name == "MLAPrefillBackendEnum":
            members = found.classes.items()
            return Members(
                {key: SimpleNamespace(get_class=lambda cls=cls: cls) for key, cls in members}
            )
        return symbols[name]

    monkeypatch.setattr(compat, "symbol", symbol)
    monkeypatch.setattr(compat, "imports", lambda module: True)
    return found


def builder_with(cls, config):
    return SimpleNamespace(_prefill_backend=cls(vllm_config=config, **vars(LAYER)))


def test_one_that_plans_outside_the_layer_is_not_tuned(vllm, config):
    builder = builder_with(vllm.classes["FLASH_ATTN"], config)
    offered = prefill_instances(builder, LAYER, config)
    assert list(offered) == ["fa4", "fa2", "trtllm", "tokenspeed"]
    with pytest.raises(UnavailableError, match="it is not chosen by batch: it plans at"):
        make_prefill("flashinfer", LAYER, config)


def test_vllms_own_stays_the_default_whatever_it_is(vllm, config):
    builder = builder_with(vllm.classes["FLASHINFER"], config)
    offered = prefill_instances(builder, LAYER, config)
    assert list(offered) == ["flashinfer", "fa2", "fa4", "trtllm", "tokenspeed"]
    assert offered["flashinfer"] is builder._prefill_backend


def test_what_vllm_refuses_says_why(vllm, config):
    vllm.classes["TRTLLM_RAGGED"].reasons = ("dtype float32 not supported",)
    with pytest.raises(UnavailableError, match="dtype float32 not supported"):
        make_prefill("trtllm", LAYER, config)
    with pytest.raises(UnavailableError, match="FlashAttention 3 does not run on this GPU"):
        make_prefill("fa3", LAYER, config)
    with pytest.raises(InputError, match="unknown prefill backend 'sage'"):
        make_prefill("sage", LAYER, config)


@pytest.mark.usefixtures("vllm")
def test_the_engines_flash_attention_version_is_put_back(config):
    assert make_prefill("fa2", LAYER, config).vllm_flash_attn_version == 2
    assert config.attention_config.flash_attn_version is None


def test_another_version_than_asked_for_is_not_taken_for_it(vllm, config):
    vllm.classes["FLASH_ATTN"].__init__ = lambda self, **_: setattr(
        self, "vllm_flash_attn_version", 2
    )
    with pytest.raises(UnavailableError, match="vLLM takes fa2 for fa4 here"):
        make_prefill("fa4", LAYER, config)
