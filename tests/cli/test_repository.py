"""diff and check, as the CI of a repository of tables calls them."""

import shutil

import pytest
from command_line import refused
from json_document import documented

from mla_tune.plan.plan import UNTUNED
from mla_tune.table import Publication
from modelled_table import ENTRIES, HEADER


@pytest.fixture
def folders(tmp_path):
    """Two folders with the same table; of the second one entry has lost its plan."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, entries in ((old, ENTRIES), (new, (_without_plan(ENTRIES[0]), *ENTRIES[1:]))):
        folder.mkdir()
        Publication(folder / "t.yaml", HEADER).write(entries)
    return old, new


def _without_plan(entry):
    return entry.model_copy(update={"plan": UNTUNED, "speedup": None, "ties": ()})


def test_diff_of_the_same_says_so(cli, folders):
    code, out, _ = cli("diff", folders[0], folders[0])
    assert code == 0
    assert out.startswith(f"t.yaml: {len(ENTRIES)} same")


def test_diff_shows_what_an_engine_would_get_else(cli, folders):
    code, out, _ = cli("diff", *folders)
    assert code == 1
    assert f"{len(ENTRIES) - 1} same, 1 lost" in out
    (row,) = out.splitlines()[3:]
    assert row.split()[:2] == [ENTRIES[0].shape, "lost"]


def test_diff_in_markdown_is_a_table(cli, folders):
    code, out, _ = cli("diff", *folders, "--format", "markdown")
    assert code == 1
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert len(rows) == 3
    assert {row.count("|") for row in rows} == {7}


def test_diff_in_json_says_everything(cli, folders):
    code, out, _ = cli("diff", *folders, "--json")
    assert out == cli("diff", *folders, "--format", "json")[1]
    assert code == 1
    refused(cli, "diff", *folders, "--json", "--format", "markdown")
    (table,) = documented("diff", out)["tables"]
    assert table["status"] == "changed"
    assert [entry["kind"] for entry in table["entries"]] == ["lost"] + ["same"] * (len(ENTRIES) - 1)


def test_a_table_may_come_or_go(cli, folders):
    (folders[1] / "t.yaml").rename(folders[1] / "u.yaml")
    code, out, _ = cli("diff", *folders)
    assert code == 1
    assert out.splitlines() == ["t.yaml: removed", "u.yaml: added"]


def test_check_of_shipped_tables_finds_nothing(cli, pytestconfig):
    code, out, _ = cli("check", pytestconfig.rootpath / "tuned_configs")
    assert (code, out.endswith("no problems\n")) == (0, True)


def test_check_names_what_is_wrong_in_each_table(cli, folders):
    (old, _) = folders
    shutil.copy(old / "t.yaml", old / "twin.yaml")
    (old / "broken.yaml").write_text("schema_version: 2\nbackend: NONE\n")
    code, out, _ = cli("check", old)
    assert code == 1
    assert "broken.yaml" in out
    assert "true for the same as" in out


def test_what_cannot_be_compared_or_checked_is_refused(cli, folders, tmp_path):
    assert "does not exist" in refused(cli, "diff", folders[0], tmp_path / "absent")
    assert "is no folder" in refused(cli, "check", tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "has no tables" in refused(cli, "check", tmp_path / "empty")
