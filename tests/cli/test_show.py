"""`mla-tune show` and `mla-tune tables`."""

import pytest
from command_line import table_of

from mla_tune.serving.cache import Cache, default_cache
from mla_tune.table import Publication
from modelled_table import ENTRIES, HEADER


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "t.yaml"
    Publication(path, HEADER).write(ENTRIES)
    return path


def test_show_prints_the_table(tuned, cli):
    code, out, _ = cli("show", table_of(tuned[0]))
    assert code == 0
    assert "2q1s300" in out
    assert "TORCH_MLA" in out


def test_several_tables_are_shown_one_below_the_other(cli, table):
    _, out, _ = cli("show", table, "bundled", "--gpu", "h200", "--mode", "eager", "--heads", 16)
    titles = [line for line in out.splitlines() if line.startswith(("TRITON_MLA,", "FLASHMLA,"))]
    assert titles == [
        "TRITON_MLA, NVIDIA H200, 16 heads, KV auto, eager, vLLM 0.33.0",
        "FLASHMLA, NVIDIA H200, 16 heads, KV auto, eager, vLLM 0.26.0",
        "TRITON_MLA, NVIDIA H200, 16 heads, KV auto, eager, vLLM 0.26.0",
    ]


def test_a_row_is_a_line_where_nobody_looks(cli, table):
    _, out, _ = cli("show", table)
    assert len([line for line in out.splitlines() if "reorder_batch_threshold=1" in line]) == 1


def test_tables_say_where_they_are_used(cli, table):
    _, out, _ = cli("tables", table, "--gpu", "NVIDIA H200", "--vllm", "0.33.1")
    assert out.startswith("here: NVIDIA H200, vLLM 0.33.1\n")
    assert out.splitlines()[-1].endswith("yes")
    _, out, _ = cli("tables", table, "--gpu", "NVIDIA L4", "--vllm", "0.34.0")
    assert out.splitlines()[-2].endswith("no[1]")
    assert out.splitlines()[-1] == (
        "[1] is for NVIDIA H200, here is NVIDIA L4; is for vLLM 0.33, here is 0.34"
    )


def test_a_gpu_may_be_named_by_what_it_alone_has(cli, table):
    _, out, _ = cli("tables", table, "bundled", "--gpu", "h100", "--vllm", "0.33.0")
    assert out.startswith("here: NVIDIA H100 80GB HBM3, vLLM 0.33.0\n")
    _, out, _ = cli("tables", table, "bundled", "--gpu", "nvidia", "--vllm", "0.33.0")
    assert out.startswith("here: nvidia, vLLM 0.33.0\n")


def test_without_a_folder_all_that_an_engine_could_find_are_listed(
    cli, table, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    slot = Cache(default_cache()).slot("engine", "all of it")
    slot.path.mkdir(parents=True)
    (slot.path / "cached.yaml").write_bytes(table.read_bytes())
    monkeypatch.setenv("MLA_TUNE_TABLES", f"{table}:{tmp_path / 'absent'}")
    _, out, err = cli("tables")
    sources = [line.split()[0] for line in out.splitlines() if "NVIDIA" in line.partition("  ")[2]]
    assert (sources[0], sources[-1]) == ("MLA_TUNE_TABLES", "cached")
    assert sources.count("shipped") > 20
    assert "absent" in err
