"""`mla-tune history` on made-up nights."""

import pytest
from command_line import refused
from json_document import documented

from mla_tune.nightly.history import History, history_path
from mla_tune.table import Publication
from modelled_table import ENTRIES, HEADER
from readings import nights, reading


@pytest.fixture
def table(tmp_path):
    """A table whose first entry became 10 % slower on the sixth night."""
    path = tmp_path / "t.yaml"
    Publication(path, HEADER).write(ENTRIES)
    slow = reading(5, 110.0, software={"vllm": "0.34.0"})
    steady = nights([50.0] * 6, shape="16q1s1k")
    kept = History(history_path(tmp_path, HEADER))
    kept.append([*nights([100.0, 100.4, 99.7, 100.1, 99.9]), slow, *steady])
    return path


def test_every_entry_has_a_line_and_a_change_is_dated(cli, table):
    code, out, err = cli("history", table)
    assert code == 0, err
    lines = "".join(out.split("\n"))
    assert "10.0% slower since 2026-11-06 (still as before on 2026-11-05" in lines
    assert "vllm 0.33.0 → 0.34.0" in lines
    assert [line.split()[0] for line in out.splitlines()[3:5]] == ["8q1s1k", "16q1s1k"]


def test_one_entry_is_shown_night_by_night(cli, table):
    code, out, _ = cli("history", table, "16q1s1k")
    assert code == 0
    rows = [line for line in out.splitlines() if line.startswith("2026-11-")]
    assert len(rows) == 6
    assert "slower" not in out


def test_json_says_everything(cli, table):
    code, out, _ = cli("history", table, "--json")
    assert code == 0
    first, second = documented("history", out)["entries"]
    (change,) = first["changes"]
    assert change["since"] == "2026-11-06T02:00:00+00:00"
    assert change["differences"] == ["vllm 0.33.0 → 0.34.0"]
    assert (len(second["readings"]), second["changes"]) == (6, [])


def test_a_table_without_a_history_or_such_a_shape_is_refused(cli, table, tmp_path):
    assert "has nothing of 99q1s1k" in refused(cli, "history", table, "99q1s1k")
    history_path(tmp_path, HEADER).unlink()
    assert "has nothing of any entry" in refused(cli, "history", table)
    assert "does not exist" in refused(cli, "history", tmp_path / "absent.yaml")


def test_a_torn_line_is_said(cli, table, tmp_path):
    path = history_path(tmp_path, HEADER)
    path.write_bytes(path.read_bytes()[:-9])
    code, _, err = cli("history", table)
    assert code == 0
    assert "torn" in err
