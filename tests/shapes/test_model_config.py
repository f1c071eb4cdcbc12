import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mla_tune.errors import InputError
from mla_tune.shapes import MlaDimensions
from mla_tune.shapes.model_config import load_model_config, model_of_config

GLM = {
    "model_type": "glm_moe_dsa",
    "num_attention_heads": 64,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 192,
    "qk_rope_head_dim": 64,
    "v_head_dim": 256,
    "index_topk": 2048,
    "rope_scaling": None,
}
DIMENSIONS = MlaDimensions(64, 512, 192, 64, 256)


def refusal(config):
    with pytest.raises(InputError) as caught:
        model_of_config(config, where="config.json")
    return str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        GLM,
        {"model_type": "glm_moe_dsa_vl", "num_attention_heads": 16, "text_config": GLM},
        {"thinker_config": {"text_config": GLM}, "talker_config": {"kv_lora_rank": 1}},
    ],
)
def test_the_language_model_is_found_wherever_it_is_nested(config):
    found = model_of_config(config, where="config.json")
    assert (found.dimensions, found.index_topk, found.notice) == (DIMENSIONS, 2048, "")


def test_a_folder_is_read_as_its_config_json(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(GLM))
    assert load_model_config(tmp_path) == load_model_config(tmp_path / "config.json")


def test_a_model_without_rotary_positions_has_none():
    found = model_of_config(GLM | {"qk_rope_head_dim": 0}, where="config.json")
    assert (found.dimensions.qk_rope_head_dim, found.dimensions.latent_dim) == (0, 512)


def test_what_is_left_out_is_what_the_model_s_own_class_takes_and_is_named():
    ling = {"model_type": "bailing_hybrid", "num_attention_heads": 32, "kv_lora_rank": 512}
    found = model_of_config(ling, where="config.json")
    assert found.dimensions == MlaDimensions(32)
    assert "leaves out qk_nope_head_dim, qk_rope_head_dim, v_head_dim" in found.notice
    mini = {"model_type": "minicpm3", "num_attention_heads": 40, "hidden_size": 2560}
    mini |= {"kv_lora_rank": 256, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32}
    found = model_of_config(mini | {"v_head_dim": None}, where="config.json")
    assert found.dimensions == MlaDimensions(40, 256, 64, 32, 64)


def test_what_is_wrong_is_named():
    qwen = {"model_type": "qwen3", "num_attention_heads": 32, "num_key_value_heads": 8}
    assert "'qwen3' without multi-head latent attention" in refusal(qwen)
    without = {key: value for key, value in GLM.items() if key != "v_head_dim"}
    assert "'v_head_dim' is missing" in refusal(without)
    assert "num_attention_heads is 'many'" in refusal(GLM | {"num_attention_heads": "many"})
    assert "kv_lora_rank is 0" in refusal(GLM | {"kv_lora_rank": 0})
    assert "kv_lora_rank is True" in refusal(GLM | {"kv_lora_rank": True})


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[1]", "null", "{'a': 1}", '{"a": 1e'])
def test_what_is_no_configuration_is_refused(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        load_model_config(path)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from([*GLM, "text_config", "llm_config"]), inner, max_size=8)
    ),
    max_leaves=20,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from([*GLM, "text_config"]), junk, max_size=8), st.booleans())
def test_any_json_is_read_or_refused_but_never_crashes(tmp_path, data, is_whole):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(GLM | data if is_whole else data))
    try:
        assert 1 <= load_model_config(path).dimensions.num_q_heads <= 65536
        refused = ""
    except InputError as error:
        refused = error.what
    assert not refused or str(path) in refused
