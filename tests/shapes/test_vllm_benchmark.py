"""Configs of vLLM's attention benchmark, read as shapes files."""

import pytest
from shapes_files import refusal, specs

from mla_tune.shapes import PRESETS
from mla_tune.shapes.file import load_shapes


def test_what_of_a_vllm_config_does_not_apply_is_named_and_skipped(write):
    text = """
description: sweep
model:
  name: deepseek-v3
  num_layers: 60
  num_q_heads: 128
  num_kv_heads: 1
  head_dim: 576
  block_size: 128
batch_specs: [q1s1k]
backends: [cutlass_mla, flashinfer_mla]
device: "cuda:0"
repeats: 5
CUTLASS_MLA: {num_kv_splits: [1, 2]}
"""
    file = load_shapes(write(text))
    assert file.backends == ("cutlass_mla", "flashinfer_mla")
    skipped = "\n".join(file.notices)
    for key in ("description", "model.num_layers", "model.block_size", "device", "repeats",
                "CUTLASS_MLA"):  # fmt: skip
        assert f"{key}: skipped" in skipped


VLLMS = """
model: {num_layers: 60, num_q_heads: 128, num_kv_heads: 1, head_dim: 576, block_size: 32}
batch_specs: [q1s1k]
"""


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("provenance: {geometries: [{model_id: x/y, synthetic: false}]}", "provenance"),
        ("cuda_graphs: true", "cuda_graphs"),
        ("reorder_batch_thresholds: [1, 2, 4]", "reorder_batch_thresholds"),
        ("nvfp4_output: true", "nvfp4_output"),
        ("benchmark: {device: 'cuda:0', repeats: 10}", "benchmark"),
        ("num_splits: [1, 2]", "num_splits"),
        ("a_key_of_next_year: {x: [1]}", "a_key_of_next_year"),
    ],
)
def test_a_key_of_another_release_in_a_config_of_vllms_is_named_and_skipped(write, text, key):
    file = load_shapes(write(VLLMS + text + "\n"))
    assert specs(file) == ["q1s1k"]
    assert any(f":4: {key}: skipped (" in notice for notice in file.notices)


def test_an_unknown_key_of_the_model_in_a_config_of_vllms_is_skipped_too(write):
    text = VLLMS.replace("block_size: 32", "q_lora_rank: 1536")
    assert any(
        ":2: model.q_lora_rank: skipped" in notice for notice in load_shapes(write(text)).notices
    )


def test_a_skipped_key_that_looks_misspelt_says_so(write):
    file = load_shapes(write(VLLMS + "batch_size: [2]\n"))
    assert any(
        "skipped (not a key known here; did you mean 'batch_sizes'?)" in n for n in file.notices
    )


@pytest.mark.parametrize(
    "model",
    [
        "{num_layers: 32, num_q_heads: 32, num_kv_heads: 8, head_dim: 128, block_size: 16}",
        "{num_q_heads: 32, num_kv_heads: 8}",
        "{name: deepseek-v3, num_kv_heads: 8, head_dim: 128}",
    ],
)
def test_a_config_for_ordinary_attention_is_no_deepseek(write, model):
    found = refusal(write(f"model: {model}\nbatch_specs: [q512, 8q1s1k]\nbackends: [FLASH_ATTN]\n"))
    assert ":1: model has 8 KV heads" in found
    assert "ordinary attention" in found


def test_the_kv_heads_of_a_known_model_are_skipped(write):
    file = load_shapes(write("model: {name: deepseek-v3, num_kv_heads: 128}\nbatch_specs: [q1]\n"))
    assert file.whole_model == PRESETS["deepseek-v3"]
    assert "model.num_kv_heads: skipped" in file.notices[0]
