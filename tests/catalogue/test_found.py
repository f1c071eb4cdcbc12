import pytest
from made_up_tables import default

from mla_tune.catalogue.found import found_tables
from mla_tune.errors import InputError
from mla_tune.table import Publication
from modelled_table import HEADER


def test_files_folders_and_the_shipped_ones_are_read_once(tmp_path):
    path = tmp_path / "t.yaml"
    Publication(path, HEADER).write([default("q1s1k", 5.0)])
    (tmp_path / "bad.yaml").write_text("schema_version: 1\n")
    found, problems = found_tables([path, tmp_path, "bundled"])
    assert found[0].path == path
    assert len(found) > 20
    assert len({table.path.resolve() for table in found}) == len(found)
    (problem,) = problems
    assert "bad.yaml" in problem
    assert found[0].table().lookup(batch=1, kv_len=1024).is_exact


def test_what_is_named_and_is_no_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        found_tables([tmp_path / "absent.yaml"])
    with pytest.raises(InputError, match=r"you name '.*', a folder without tables"):
        found_tables([tmp_path])


def test_a_loop_of_links_in_a_folder_is_left_out(tmp_path):
    Publication(tmp_path / "t.yaml", HEADER).write([default("q1s1k", 5.0)])
    (tmp_path / "a.yaml").symlink_to("b.yaml")
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    found, problems = found_tables([tmp_path])
    assert [table.path.name for table in found] == ["t.yaml"]
    assert len(problems) == 2
    assert all("symbolic links" in problem for problem in problems)
