import json

from mla_tune.shapes import PRESETS, MlaDimensions
from mla_tune.shapes.file import load_shapes


def test_a_model_may_be_spelt_out(write):
    text = (
        "model: {name: mine, num_q_heads: 2, kv_lora_rank: 32, qk_nope_head_dim: 16, "
        "qk_rope_head_dim: 8, v_head_dim: 16}\nbatch_specs: [q1]\n"
    )
    assert load_shapes(write(text)).whole_model == MlaDimensions(2, 32, 16, 8, 16)


def test_what_a_model_leaves_out_is_named(write):
    file = load_shapes(write("model: {num_q_heads: 8}\nbatch_specs: [q1]\n"))
    assert file.whole_model == MlaDimensions(8)
    assert "kv_lora_rank, qk_nope_head_dim" in file.notices[0]


def test_tensor_parallel_sizes_give_the_heads_a_gpu_holds(write):
    file = load_shapes(
        write("model: deepseek-v3\ntensor_parallel_sizes: [8, 16, 8]\nbatch_specs: [q1]\n")
    )
    assert [model.num_q_heads for model in file.models] == [16, 8]


def test_a_path_and_a_preset_say_what_the_indexer_picks_unless_the_file_does(write, tmp_path):
    config = {"num_attention_heads": 8, "kv_lora_rank": 512, "qk_nope_head_dim": 128}
    config |= {"qk_rope_head_dim": 64, "v_head_dim": 128, "index_topk": 512}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    file = load_shapes(write(f"model: {tmp_path / 'model'}\nbatch_specs: [q1]\n"))
    assert (file.whole_model, file.index_topk) == (MlaDimensions(8), 512)
    file = load_shapes(write(f"model: {tmp_path / 'model'}\nindex_topk: 64\nbatch_specs: [q1]\n"))
    assert file.index_topk == 64
    assert load_shapes(write("model: glm-5\nbatch_specs: [q1]\n")).index_topk == 2048
    assert load_shapes(write("model: kimi-k2\nbatch_specs: [q1]\n")).index_topk == 2048


def test_what_a_name_was_read_as_is_a_notice(write):
    file = load_shapes(write("model: someone/Kimi-K3-Instruct\nbatch_specs: [q1]\n"))
    assert file.whole_model == PRESETS["kimi-k3"]
    assert "dimensions taken from kimi-k3" in file.notices[0]
    file = load_shapes(write("model: {name: someone/mine, num_q_heads: 4}\nbatch_specs: [q1]\n"))
    assert file.whole_model == MlaDimensions(4)
