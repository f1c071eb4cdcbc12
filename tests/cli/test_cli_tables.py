"""The commands that read tables."""

import pytest
from command_line import refused, table_of

from mla_tune.shapes.served_reach import ServedReach
from mla_tune.table import Publication
from modelled_table import ENTRIES, HEADER, MODEL


def test_show_prints_the_table(tuned, cli):
    code, out, _ = cli("show", table_of(tuned[0]))
    assert code == 0
    assert "2q1s300" in out
    assert "TORCH_MLA" in out


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
    assert "1 entries are guarded as far as" in cli("check", tmp_path)[1]


def test_recheck_measures_the_published_plans_again(tuned, cli):
    code, out, _ = cli("recheck", table_of(tuned[0]), "--rounds", 4, "--device", "cpu")
    assert code in {0, 1}
    assert "all good" in out or "could not be told" in out if code == 0 else "not as good" in out


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
