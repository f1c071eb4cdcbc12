from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.table import Table
from mla_tune.table.loading import LoadedTable, load_tables
from mla_tune.table.matching import choose, differences, told_apart
from tabled_engine import DIGESTS, DIMENSIONS, ENGINE, H200, SOFTWARE, entry, header

EAGER = ENGINE | {"mode": "eager"}


def table(*plans: Plan, **changes: Any) -> Table:
    entries = [entry(f"{2 << index}q1s1k", plan) for index, plan in enumerate(plans)]
    return Table(header(**changes), tuple(entries or [entry("8q1s1k", UNTUNED)]))


def loaded(name: str, **changes: Any) -> LoadedTable:
    return LoadedTable(Path(name), table(**changes))


def test_a_table_is_true_for_the_engine_it_was_measured_in() -> None:
    assert differences(table(), H200) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"software": SOFTWARE | {"vllm": "0.25.3"}}, "vLLM release"),
        ({"software": {"triton": "3.6.0"}}, "vLLM release"),
        ({"software": SOFTWARE | {"triton": "3.7.0"}}, "triton release"),
        ({"software": {"vllm": "0.26.0"}}, "triton release"),
        (
            {"device": {"name": "NVIDIA H100", "compute_capability": "9.0", "sm_count": 132}},
            "GPU",
        ),
        (
            {"device": {"name": "NVIDIA H200", "compute_capability": "9.0", "sm_count": 66}},
            "SM count",
        ),
        ({"model": DIMENSIONS | {"num_q_heads": 128}}, "num_q_heads"),
        ({"model": DIMENSIONS | {"v_head_dim": 256}}, "v_head_dim"),
        ({"kv_cache_dtype": "fp8"}, "KV cache dtype"),
        ({"quantization": "fp8_per_block", "engine": EAGER}, "quantization"),
        ({"engine": ENGINE | {"block_size": 64}}, "block size"),
        ({"engine": ENGINE | {"index_topk": 1024}}, "index_topk"),
    ],
)
def test_one_differing_field_refuses_a_table(changes: dict[str, Any], field: str) -> None:
    assert [name for name, _, _ in differences(table(**changes), H200)] == [field]
    chosen, reason = choose([loaded("t.yaml", **changes)], H200)
    assert chosen == {}
    assert reason is not None
    assert field in reason


def test_what_changed_is_named_and_not_its_digest() -> None:
    facts = replace(H200, vllm="0.27.0", digests=tuple(DIGESTS.items()))
    same = loaded("same.yaml", software_digests=DIGESTS)
    assert choose([same], facts) == ({"graph": same}, None)
    other = DIGESTS | {"triton_decode_attention.py": "other"}
    chosen, reason = choose([loaded("t.yaml", software_digests=other)], facts)
    assert chosen == {}
    assert reason == (
        "the nearest table, t.yaml, does not hold: "
        "triton_decode_attention.py differs from what was measured"
    )
    changes = {"kv_cache_dtype": "fp8", "software_digests": dict.fromkeys(DIGESTS, "other")}
    _, reason = choose([loaded("t.yaml", **changes)], facts)
    assert reason == (
        "the nearest table, t.yaml, is for KV cache dtype fp8 (engine: auto), and does not hold: "
        "triton_decode_attention.py, triton_mla.py differ from what was measured"
    )


def test_a_virtual_function_is_the_gpu_itself_and_an_instance_of_mig_is_not() -> None:
    device = {"name": "AMD Instinct MI350X", "compute_capability": "9.5", "sm_count": 256}
    facts = replace(H200, compute_capability="9.5", sm_count=256)
    held = table(device=device)
    assert differences(held, replace(facts, device_name="AMD Instinct MI350X VF")) == []
    found = differences(table(), replace(H200, device_name="NVIDIA H200 MIG 1g.18gb", sm_count=16))
    assert [name for name, _, _ in found] == ["GPU", "SM count"]


LOCKED = {
    "device": {
        "name": "NVIDIA H200",
        "compute_capability": "9.0",
        "sm_count": 132,
        "locked_sm_clock_mhz": 1005,
    }
}


@pytest.mark.parametrize("length", [131072, 65536])
def test_a_table_of_a_locked_clock_is_used_where_there_is_no_other(length: int) -> None:
    locked = loaded("a.yaml", **LOCKED)
    other = loaded("b.yaml", engine=ENGINE | {"max_model_len": length})
    assert choose([locked, other], H200) == ({"graph": other}, None)
    assert choose([locked], H200) == ({"graph": locked}, None)
    assert "locked at 1005 MHz" in told_apart(locked.table, H200)
    assert "locked" not in told_apart(other.table, H200)
    assert told_apart(table(), H200) == ""


def test_a_block_size_that_is_not_settled_is_not_compared() -> None:
    early = replace(H200, block_size=None)
    assert differences(table(engine=ENGINE | {"block_size": 64}), early) == []


def test_a_table_of_another_backend_is_not_for_this_one() -> None:
    found = differences(table(backend="FLASHMLA"), H200)
    assert [name for name, _, _ in found] == ["backend", "block size"]


@pytest.mark.parametrize(
    "engine",
    [
        {"quantization": "fp8_per_tensor"},
        {"quantization": "CompressedTensorsLinearMethod CompressedTensorsW8A8Fp8"},
        {"quantization": "fp8_per_block_and_none"},
        {"block_size": 128},
        {"kv_cache_dtype": "auto_and_fp8"},
    ],
)
def test_a_version_1_table_is_for_what_it_left_out(engine: dict[str, Any]) -> None:
    first = table(schema_version=1, engine=EAGER)
    assert differences(first, H200) == []
    assert len(differences(first, replace(H200, **engine))) == 1


def test_a_graph_holds_decodes_whose_weights_are_16_bits_whatever_they_were() -> None:
    """DeepSeek-V3 as it is published, with the splits that were measured on 16-bit weights."""
    facts = replace(H200, quantization="fp8_per_block")
    tables = [loaded("graph.yaml", schema_version=1), loaded("eager.yaml", engine=EAGER)]
    chosen, reason = choose(tables, facts)
    assert list(chosen) == ["graph"]
    assert reason == (
        "the nearest table for eager mode, eager.yaml, is for quantization none "
        "(engine: fp8_per_block)"
    )


@pytest.mark.parametrize(
    ("backend", "mode", "size", "found"),
    [
        ("FLASH_ATTN_MLA", "eager", 512, []),
        ("FLASH_ATTN_MLA", "eager", 256, [("max_cudagraph_capture_size", 512, 256)]),
        ("FLASH_ATTN_MLA", "eager", 0, [("max_cudagraph_capture_size", 512, 0)]),
        ("FLASH_ATTN_MLA", "graph", 256, []),
        ("TRITON_MLA", "eager", 256, []),
    ],
)
def test_the_largest_capture_counts_where_it_decides_the_default(
    backend: str, mode: str, size: int, found: list[Any]
) -> None:
    facts = replace(H200, backend=backend, max_cudagraph_capture_size=size)
    one = table(backend=backend, engine=ENGINE | {"mode": mode})
    assert differences(one, facts) == found


def test_the_shipped_tables_are_for_engines_that_change_nothing() -> None:
    tables, _ = load_tables("bundled")
    for heads in (16, 128):
        model = tuple((DIMENSIONS | {"num_q_heads": heads}).items())
        for backend, block_size in (("TRITON_MLA", 16), ("FLASH_ATTN_MLA", 16), ("FLASHMLA", 64)):
            facts = replace(H200, backend=backend, model=model, block_size=block_size)
            mine = [one for one in tables if one.table.header.backend == backend]
            chosen, reason = choose(mine, facts)
            assert reason is None
            assert set(chosen) == {"graph", "eager"}


@pytest.mark.parametrize(
    ("tables", "engine"), [("fp8_e4m3", "fp8"), ("fp8", "fp8_e4m3"), ("bfloat16", "auto")]
)
def test_two_names_of_one_dtype_match(tables: str, engine: str) -> None:
    facts = replace(H200, kv_cache_dtype=engine)
    assert differences(table(kv_cache_dtype=tables), facts) == []


@pytest.mark.parametrize(
    ("measured", "engine"),
    [
        ({"vllm": "0.26.4"}, {}),
        ({"triton": "3.6.1"}, {}),
        ({"vllm": "0.33.0"}, {"vllm": "0.33rc1"}),
        ({"vllm": "0.26.0+cu130"}, {}),
        ({"vllm": "0.1.dev5+gabc"}, {"vllm": "0.1.dev5+gabc"}),
    ],
)
def test_versions_whose_kernels_are_the_same(
    measured: dict[str, str], engine: dict[str, str]
) -> None:
    facts = replace(H200, **engine)
    assert differences(table(software=SOFTWARE | measured), facts) == []


@pytest.mark.parametrize(
    ("measured", "engine"),
    [
        ("0.23.0", "0.23.1rc1.dev727+g1a2b3c4"),
        ("0.23.1rc1.dev727+g1a2b3c4", "0.23.1"),
        ("0.1.dev5+gabc", "0.1.dev6+gdef"),
    ],
)
def test_a_development_build_matches_only_itself(measured: str, engine: str) -> None:
    facts = replace(H200, vllm=engine)
    found = differences(table(software=SOFTWARE | {"vllm": measured}), facts)
    assert [name for name, _, _ in found] == ["vLLM release"]


def test_flashinfer_counts_where_its_kernel_is_used() -> None:
    other = SOFTWARE | {"flashinfer": "0.7.0", "triton": "3.7.0"}
    b200 = replace(H200, backend="FLASHINFER_MLA", block_size=32)
    found = differences(table(backend="FLASHINFER_MLA", software=other), b200)
    assert found == [("flashinfer release", "0.7", "0.6")]
    flashmla = replace(H200, backend="FLASHMLA", block_size=64)
    assert differences(table(backend="FLASHMLA", software=other), flashmla) == []
    for name in ("flashinfer", "trtllm"):
        prefill = table(Plan(prefill_backend=name), backend="FLASHMLA", software=other)
        assert differences(prefill, flashmla) == found


def test_one_table_a_mode_with_the_nearest_max_model_len() -> None:
    tables = [
        loaded("far.yaml", engine={"mode": "graph", "max_model_len": 32768}),
        loaded("near.yaml", engine={"mode": "graph", "max_model_len": 163840}),
        loaded("eager.yaml", engine={"mode": "eager", "max_model_len": 8192}),
        loaded("other.yaml", kv_cache_dtype="fp8"),
    ]
    chosen, reason = choose(tables, H200)
    assert reason is None
    assert {mode: str(table.path) for mode, table in chosen.items()} == {
        "graph": "near.yaml",
        "eager": "eager.yaml",
    }


def test_the_warning_names_the_nearest_table() -> None:
    far = loaded("far.yaml", kv_cache_dtype="fp8", software=SOFTWARE | {"vllm": "0.20.2"})
    near = loaded("near.yaml", model=DIMENSIONS | {"num_q_heads": 128})
    _, reason = choose([far, near], H200)
    assert reason == "the nearest table, near.yaml, is for num_q_heads 128 (engine: 16)"
