import pytest

from fake_device import DEFAULT, splits
from mla_tune.errors import InputError
from mla_tune.tuning.study import Journal, Policy
from mla_tune.tuning.study.folder import StudyFolder
from mla_tune.tuning.study.merged import MergedStorage

PLANS = (DEFAULT, splits(1))


def begin(path, workload):
    journal = Journal(path)
    journal.ledger(workload, PLANS, Policy())
    return journal


def names(folder):
    return [
        s.study_name.partition(" ")[0] for s in MergedStorage(folder.storages).get_all_studies()
    ]


def test_journals_that_come_later_stand_behind(tmp_path):
    folder = StudyFolder(tmp_path)
    assert names(folder) == []
    begin(tmp_path / "b.journal", "8q1s1k").close()
    assert names(folder) == ["8q1s1k"]
    going_on = begin(tmp_path / "a.journal", "8q1s2k")
    assert names(folder) == ["8q1s1k", "8q1s2k"]
    going_on.close()


def test_a_journal_that_cannot_be_read_is_named_and_the_others_are_shown(tmp_path):
    begin(tmp_path / "b.journal", "8q1s1k").close()
    (tmp_path / "a.journal").mkdir()
    folder = StudyFolder(tmp_path)
    assert names(folder) == ["8q1s1k"]
    assert "a.journal is a folder" in folder.notices[tmp_path / "a.journal"]


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        StudyFolder(tmp_path / "none")
