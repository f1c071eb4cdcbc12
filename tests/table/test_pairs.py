"""Tables of two folders, side by side."""

import pytest

from mla_tune.errors import InputError
from mla_tune.table.pairs import TablePair, paired


def test_tables_are_paired_by_their_place(tmp_path):
    for name in ("old/a.yaml", "old/gpu/b.yaml", "new/gpu/b.yaml", "new/c.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    old, new = tmp_path / "old", tmp_path / "new"
    assert paired(old, new) == [
        TablePair("a.yaml", old / "a.yaml", None),
        TablePair("c.yaml", None, new / "c.yaml"),
        TablePair("gpu/b.yaml", old / "gpu/b.yaml", new / "gpu/b.yaml"),
    ]


def test_two_tables_are_a_pair_whatever_they_are_called(tmp_path):
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.touch()
    other.touch()
    assert paired(one, other) == [TablePair("other.yaml", one, other)]


def test_a_file_against_a_folder_is_refused(tmp_path):
    (tmp_path / "a.yaml").touch()
    with pytest.raises(InputError, match="one is a folder"):
        paired(tmp_path, tmp_path / "a.yaml")
    with pytest.raises(InputError, match="does not exist"):
        paired(tmp_path, tmp_path / "absent")
