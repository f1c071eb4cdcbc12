"""A table of schema version 1: what it is true for, and how a run of today writes into it."""

import dataclasses
from pathlib import Path

import pytest

from fake_device import ENVIRONMENT
from mla_tune.errors import InputError
from mla_tune.plan.plan import Plan
from mla_tune.shapes import MlaDimensions
from mla_tune.table import Entry, Header, TableFile, merge

TUNED = Path(__file__).parents[2] / "tuned_configs"
SHIPPED = TUNED / "TRITON_MLA-NVIDIA_H200-heads_16-kv_auto-graph-vllm_0.26.0.yaml"

FIRST = """\
# Our H200s.
schema_version: 1
backend: TRITON_MLA
device: {name: NVIDIA H200, compute_capability: '9.0', sm_count: 132}
model: {num_q_heads: 16, kv_lora_rank: 512, qk_nope_head_dim: 128, qk_rope_head_dim: 64, v_head_dim: 128}
kv_cache_dtype: auto
# As in production.
engine: {mode: graph, max_model_len: 131072}
software: {vllm: 0.26.0}
entries:
  # Busy hours.
  - shape: 8q1s1k
    plan: {num_kv_splits: 8}
    latency_us: 10.0   # as seen
    default_us: 20.0
"""  # noqa: E501
H200 = dataclasses.replace(
    ENVIRONMENT,
    device_name="NVIDIA H200",
    compute_capability="9.0",
    sm_count=132,
    software={"vllm": "0.26.0"},
)


def header(**changes) -> Header:
    return Header.of(H200, "TRITON_MLA", MlaDimensions(16), "auto", "graph", 131072, **changes)


def entry(shape: str) -> Entry:
    return Entry(shape=shape, plan=Plan(num_kv_splits=4), latency_us=5.0, default_us=9.0)


def merged(tmp_path: Path, text: str, new: Header) -> str:
    path = tmp_path / "t.yaml"
    path.write_bytes(text.encode())
    merge(path, new, [entry("16q1s1k")])
    assert TableFile.load(path).header == new
    assert [each.shape for each in TableFile.load(path).entries] == ["8q1s1k", "16q1s1k"]
    return path.read_bytes().decode()


def test_what_the_first_version_left_out_is_vllms_own():
    found = TableFile.load(SHIPPED).header
    assert found.schema_version == 1
    assert found.quantization == "none"
    assert found.full_engine.block_size == 16
    assert found.full_engine.max_cudagraph_capture_size == 512


def test_a_header_of_today_says_all_of_it():
    assert header().model_dump(exclude_none=True)["engine"] == {
        "mode": "graph",
        "max_model_len": 131072,
        "block_size": 16,
        "max_cudagraph_capture_size": 512,
    }


def test_a_run_with_vllms_own_settings_upgrades_a_table_in_place(tmp_path):
    text = merged(tmp_path, FIRST, header())
    added = "  - shape: 16q1s1k\n    plan: {num_kv_splits: 4}\n    latency_us: 5.0\n"
    assert text == (
        FIRST.replace("schema_version: 1", "schema_version: 2")
        .replace("engine:", "quantization: none\nengine:")
        .replace("131072}", "131072, block_size: 16, max_cudagraph_capture_size: 512}")
        + f"{added}    default_us: 9.0\n"
    )


def test_what_a_driver_does_not_tell_puts_no_upgrade_off(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(FIRST)
    quiet = dataclasses.replace(H200, unwatched="clocks")
    shape = ("TRITON_MLA", MlaDimensions(16), "auto", "graph", 131072)
    merge(path, Header.of(quiet, *shape), [entry("16q1s1k")])
    assert path.read_text().startswith("# Our H200s.\nschema_version: 2\n")
    assert "# As in production.\nquantization: none\nengine:" in path.read_text()


def test_an_upgrade_keeps_the_line_ends_of_a_windows_editor(tmp_path):
    text = merged(tmp_path, FIRST.replace("\n", "\r\n"), header())
    assert text.count("\r\n") == text.count("\n")
    assert "quantization: none\r\nengine: {mode: graph, max_model_len: 131072, block" in text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # A value over several lines, keys after the entries, a document in braces.
        (
            "engine: {mode: graph, max_model_len: 131072}",
            "engine:\n  mode: graph\n  max_model_len: 131072",
        ),
        ("engine: {mode: graph, max_model_len: 131072}\n", ""),
        ("schema_version: 1\n", "'schema_version': 1\n"),
    ],
)
def test_a_reader_s_own_spelling_is_upgraded(tmp_path, before, after):
    text = FIRST.replace(before, after)
    if "engine" not in text:
        text += "engine: {mode: graph, max_model_len: 131072}\n"
    found = merged(tmp_path, text, header())
    assert "# Busy hours.\n  - shape: 8q1s1k" in found
    assert "# Our H200s.\n" in found


@pytest.mark.parametrize(
    "changes",
    [{"quantization": "fp8_per_block"}, {"block_size": 64}, {"max_cudagraph_capture_size": 256}],
)
def test_a_run_with_other_settings_leaves_the_table_alone(tmp_path, changes):
    path = tmp_path / "t.yaml"
    path.write_text(FIRST)
    with pytest.raises(InputError, match="this run is for"):
        merge(path, header(**changes), [entry("16q1s1k")])
    assert path.read_text() == FIRST


def test_an_engine_s_own_settings_stay_apart_from_its_neighbours(tmp_path):
    path = tmp_path / "t.yaml"
    merge(path, header(block_size=64), [entry("16q1s1k")])
    with pytest.raises(InputError, match="block_size: 64"):
        merge(path, header(), [entry("8q1s1k")])
