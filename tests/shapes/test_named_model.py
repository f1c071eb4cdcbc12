import json

import pytest

from mla_tune.errors import InputError
from mla_tune.shapes import PRESETS, MlaDimensions
from mla_tune.shapes.named_model import named_model

CONFIG = {
    "num_attention_heads": 24,
    "kv_lora_rank": 256,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
    "v_head_dim": 64,
}
MINE = MlaDimensions(24, 256, 64, 32, 64)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "Kimi-K2").mkdir(parents=True)
    (tmp_path / "owner" / "Kimi-K2" / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def test_a_preset_is_itself_and_says_nothing_of_it(folder):
    (folder / "glm-5").write_text("no configuration")
    found = named_model("GLM-5")
    assert (found.dimensions, found.index_topk, found.notice) == (PRESETS["glm-5"], 2048, "")


def test_a_path_is_truer_than_a_name(folder):
    for name in ("owner/Kimi-K2", "owner/Kimi-K2/config.json", str(folder / "owner" / "Kimi-K2")):
        assert named_model(name).dimensions == MINE
    other = named_model("another/Kimi-K2")
    assert other.dimensions == PRESETS["kimi-k2"]
    assert "kimi-k2" in other.notice


def test_what_lies_in_the_hub_s_cache_is_truer_than_a_preset(folder, monkeypatch):
    path = folder / "owner" / "Kimi-K2" / "config.json"
    cache = {"another/Kimi-K2": path}
    monkeypatch.setattr("mla_tune.shapes.named_model.cached_config", cache.get)
    assert named_model("another/Kimi-K2").dimensions == MINE


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no/config.json", "does not exist"),
        ("owner", "owner/config.json does not exist"),
        ("org/kimi-k22", "unknown model"),
        ("org/kimy-k2", "did you mean 'kimi-k2'?"),
        ("x" * 5000, "unknown model"),
        ("\0", "unknown model"),
        ("", "unknown model"),
        ("/dev/null", "/dev/null"),
    ],
)
def test_what_is_none_of_these_is_refused(name, told):
    with pytest.raises(InputError) as caught:
        named_model(name)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 1500
