"""`mla-tune lookup`, and what it shares with show: refusals."""

from pathlib import Path

import pytest
from command_line import refused, table_of

from mla_tune.cli.figures import told_time
from mla_tune.shapes.served_reach import ServedReach
from mla_tune.table import Publication, Table
from modelled_table import ENTRIES, HEADER, MODEL

SHIPPED = Path(__file__).parents[2] / "tuned_configs"


def test_lookup_says_hit_or_miss_by_its_exit_code(tuned, cli):
    table = table_of(tuned[0])
    code, out, _ = cli("lookup", table, "--batch", 2, "--kv-len", 300, "--query-len", 1)
    assert (code, out.split(":")[0]) == (0, "hit")
    code, out, _ = cli("lookup", table, "--batch", 64, "--kv-len", "4k")
    assert (code, out.split(":")[0]) == (1, "miss")
    code, out, _ = cli("lookup", table, "--shape", "q8s70_2q1s130")
    assert (code, out.split(":")[0]) == (0, "hit")


def test_lookup_says_what_the_model_of_a_table_predicts(cli, tmp_path):
    path = tmp_path / "t.yaml"
    Publication(path, HEADER).write(ENTRIES, MODEL)
    code, out, _ = cli("lookup", path, "--batch", 1, "--kv-len", "4k")
    assert code == 0
    assert "num_kv_splits=32 (by the table's model, which predicts 1.75×)" in out
    code, out, _ = cli("lookup", path, "--batch", 1, "--kv-len", "64k")
    assert code == 1
    assert "outside of what was measured" in out


def test_what_is_guarded_by_a_record_says_so(cli, tmp_path):
    path = tmp_path / "t.yaml"
    reach = ServedReach(to=4095, beyond=0.0021)
    Publication(path, HEADER).write([ENTRIES[0].model_copy(update={"served": reach})])
    told = "guarded by what was served, to 4095 tokens; 0.21% of the recorded steps had longer"
    assert f"{ENTRIES[0].shape}: {told} requests" in cli("show", path)[1]
    assert f"; {told} requests)" in cli("lookup", path, "--shape", ENTRIES[0].shape)[1]
    assert "1 entry is guarded as far as" in cli("check", tmp_path)[1]


H100 = "TRITON_MLA-NVIDIA_H100_80GB_HBM3-heads_16-kv_auto-graph-vllm_0.33.0.yaml"
ENTRY = Table.load(SHIPPED / H100).lookup(batch=32, kv_len=4096).entry
_, CASE_4K, CASE_16K, *_ = ENTRY.cases
OF_BOTH = f"in the mean over 1k, 4k, 16k: {told_time(ENTRY.latency_us)}, speed-up {ENTRY.speedup}"
AT_4K = f"at 4k: {told_time(CASE_4K.latency_us)}, speed-up {CASE_4K.speedup}"
AT_16K = f"at 16k: {told_time(CASE_16K.latency_us)}"


@pytest.mark.parametrize("length", ["4k", "4K", "4096"])
def test_the_length_that_was_asked_for_comes_before_the_mean(cli, length):
    _, out, _ = cli("lookup", SHIPPED / H100, "--batch", 32, "--kv-len", length)
    assert f"exact; {AT_4K}; {OF_BOTH}" in out


def test_a_length_between_has_those_beside_it(cli):
    _, out, _ = cli("lookup", SHIPPED / H100, "--batch", 32, "--kv-len", "6k")
    assert f"between its lengths; not measured at this length; {AT_4K}; {AT_16K}" in out
    assert OF_BOTH in out


def test_a_folder_answers_table_by_table(cli):
    asked = ("--batch", 32, "--kv-len", "4k", "--gpu", "h200", "--heads", 16, "--mode", "graph")
    code, out, _ = cli("lookup", "bundled", *asked)
    lines = out.splitlines()
    assert code == 0
    triton = "TRITON_MLA, NVIDIA H200, 16 heads, KV auto, graph, vLLM {}: hit: 32q1s4k: num_kv"
    assert lines[-2].startswith(triton.format("0.26.0"))
    assert lines[-1].startswith(triton.format("0.33.0"))
    assert any(": miss: 32q1s4k: the nearest entry, 32q1s8k" in line for line in lines)


@pytest.mark.parametrize("command", ["show", "lookup"])
def test_a_table_that_is_missing_is_refused(cli, tmp_path, command):
    question = ["--batch", 1, "--kv-len", 1] if command == "lookup" else []
    message = refused(cli, command, tmp_path / "absent.yaml", *question)
    assert "absent.yaml does not exist" in message


@pytest.mark.parametrize(
    "question",
    [
        [],
        ["--batch", 8],
        ["--batch", 0, "--kv-len", 1],
        ["--batch", 1, "--kv-len", "0"],
        ["--batch", 1, "--kv-len", 4, "--query-len", 8],
        ["--shape", "oops"],
        ["--shape", "q1", "--batch", 1, "--kv-len", 1],
        ["--batch", 1, "--kv-len", 1, "--within", 0.5],
        ["--batch", 1, "--kv-len", 1, "--within", "nan"],
        ["--batch", 1, "--kv-len", 1, "--within", "inf"],
    ],
)
def test_a_question_without_meaning_is_refused(tuned, cli, question):
    refused(cli, "lookup", table_of(tuned[0]), *question)
