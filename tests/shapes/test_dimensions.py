from mla_tune.shapes import MlaDimensions
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
