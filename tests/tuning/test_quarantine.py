import os
from dataclasses import replace

import pytest
import yaml

import mla_tune.tuning.quarantine as module
from fake_device import WARD, splits
from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.files.document import Document
from mla_tune.tuning.quarantine import FIELDS, Quarantine


@pytest.fixture
def path(tmp_path):
    return tmp_path / "quarantine.yaml"


def test_an_engine_s_own_settings_have_their_own_entries(path):
    hybrid = replace(WARD, settings={"block_size": 64, "quantization": "fp8_per_block"})
    quarantine = Quarantine(path)
    quarantine.add(hybrid, "8q1s1k", splits(2), "died")
    assert Quarantine(path).reason(hybrid, "8q1s1k", splits(2)) == "died"
    assert Quarantine(path).reason(WARD, "8q1s1k", splits(2)) is None


def test_a_plan_is_not_tried_again_in_this_run_nor_in_the_next(path):
    quarantine = Quarantine(path)
    assert quarantine.reason(WARD, "8q1s1k", splits(2)) is None
    quarantine.add(WARD, "8q1s1k", splits(2), "died: SIGSEGV")
    assert quarantine.reason(WARD, "8q1s1k", splits(2)) == "died: SIGSEGV"
    assert Quarantine(path).reason(WARD, "8q1s1k", splits(2)) == "died: SIGSEGV"


@pytest.mark.parametrize(
    ("ward", "shape", "plan"),
    [
        (WARD, "8q1s2k", splits(2)),
        (WARD, "8q1s1k", splits(4)),
        (replace(WARD, backend="TRITON_MLA"), "8q1s1k", splits(2)),
        (replace(WARD, device="other"), "8q1s1k", splits(2)),
        (replace(WARD, model={"num_q_heads": 4}), "8q1s1k", splits(2)),
        (replace(WARD, mode="graph"), "8q1s1k", splits(2)),
        (replace(WARD, software_digest="newer"), "8q1s1k", splits(2)),
        (replace(WARD, settings={"block_size": 64}), "8q1s1k", splits(2)),
    ],
)
def test_anything_else_is_free_and_so_is_newer_software(path, ward, shape, plan):
    quarantine = Quarantine(path)
    quarantine.add(WARD, "8q1s1k", splits(2), "died")
    assert quarantine.reason(ward, shape, plan) is None


def test_an_entry_says_all_there_is_to_know(path):
    Quarantine(path).add(WARD, "8q1s1k", splits(2), "timed out: no answer within 3 s")
    entry = yaml.safe_load(path.read_text())["quarantine"][0]
    assert tuple(entry) == FIELDS
    assert entry["plan"] == {"num_kv_splits": 2}
    assert entry["software"] == {"torch": "2.13.0"}


def test_a_plan_is_listed_once(path):
    quarantine = Quarantine(path)
    quarantine.add(WARD, "8q1s1k", splits(2), "died")
    quarantine.add(WARD, "8q1s1k", splits(2), "died again")
    assert len(yaml.safe_load(path.read_text())["quarantine"]) == 1


def test_two_runs_that_share_a_folder_keep_each_others_entries(path):
    one, other = Quarantine(path), Quarantine(path)
    one.add(WARD, "8q1s1k", splits(2), "died")
    other.add(WARD, "8q1s1k", splits(8), "died")
    again = Quarantine(path)
    assert again.reason(WARD, "8q1s1k", splits(2))
    assert again.reason(WARD, "8q1s1k", splits(8))


NO_LISTS = ["a: 1\n", "- a\n", "quarantine: {}\n", "quarantine: [{a: 1}]\n", "\0\0", "&a [*a]"]


@pytest.mark.parametrize("text", NO_LISTS)
def test_a_file_that_is_no_list_of_plans_is_named_and_kept_beside(path, text):
    path.write_text(text)
    told = []
    quarantine = Quarantine(path, told.append)
    assert len(told) == 1
    assert str(path) in told[0]
    assert path.with_name("quarantine.yaml.damaged-1").read_text() == text
    quarantine.add(WARD, "8q1s1k", splits(2), "died")
    assert Quarantine(path, told.append).reason(WARD, "8q1s1k", splits(2)) == "died"
    assert len(told) == 1


@pytest.mark.parametrize("damage", [b"\0", b"\xff\xfe", b"\n: ]", b"\n&a"])
def test_what_can_be_read_of_a_damaged_list_goes_on(path, damage):
    told = []
    quarantine = Quarantine(path, told.append)
    for count in (2, 4, 8):
        quarantine.add(WARD, "8q1s1k", splits(count), "died")
    whole = path.read_bytes()
    middle = whole.index(b"num_kv_splits: 4")
    path.write_bytes(whole[:middle] + damage + whole[middle:])
    # Found by a run that is under way, and by the next one.
    quarantine.add(WARD, "8q1s1k", splits(16), "died")
    again = Quarantine(path, told.append)
    found = [again.reason(WARD, "8q1s1k", splits(count)) for count in (2, 4, 8, 16)]
    assert found == ["died", None, "died", "died"]
    assert len(told) == 1
    assert "2 of its plans" in told[0]
    assert path.with_name("quarantine.yaml.damaged-1").exists()


def test_a_folder_in_its_place_is_refused(path):
    path.mkdir()
    with pytest.raises(InputError, match=r"quarantine\.yaml is a folder"):
        Quarantine(path)


def test_a_full_disk_is_an_error_and_leaves_the_old_list(path, monkeypatch):
    Quarantine(path).add(WARD, "8q1s1k", splits(2), "died")
    before = path.read_bytes()

    def full(_handle):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentFailure, match="No space left"):
        Quarantine(path).add(WARD, "8q1s1k", splits(8), "died")
    assert path.read_bytes() == before


def test_an_addition_writes_its_own_entry_and_no_other(path, monkeypatch):
    quarantine = Quarantine(path)
    quarantine.add(WARD, "8q1s1k", splits(2), "died")
    monkeypatch.setattr(module, "write_atomically", None)
    monkeypatch.setattr(Document, "parse", None)
    for count in range(3, 9):
        before = path.read_bytes()
        quarantine.add(WARD, "8q1s1k", splits(count), "died: [x]\n\x1b[2J")
        assert path.read_bytes().startswith(before)
    monkeypatch.undo()
    again = Quarantine(path)
    assert all(again.reason(WARD, "8q1s1k", splits(count)) for count in range(2, 9))
    assert again.reason(WARD, "8q1s1k", splits(8)) == "died: [x]\n\x1b[2J"
    again.add(WARD, "8q1s1k", splits(9), "died")
    assert len(yaml.safe_load(path.read_text())["quarantine"]) == 8


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "other: 1\n",
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("\n", "\n  ").rstrip(" "),
        lambda text: text + "...\n",
        lambda text: "quarantine: " + str(yaml.safe_load(text)["quarantine"]) + "\n",
        lambda text: text + "# the end",
    ],
)
def test_a_list_that_a_hand_has_changed_is_added_to_all_the_same(path, change):
    Quarantine(path).add(WARD, "8q1s1k", splits(2), "died")
    path.write_text(change(path.read_text()))
    Quarantine(path).add(WARD, "8q1s1k", splits(8), "died")
    again = Quarantine(path)
    assert again.reason(WARD, "8q1s1k", splits(2)) == "died"
    assert again.reason(WARD, "8q1s1k", splits(8)) == "died"


def test_an_addition_torn_by_a_power_cut_costs_itself(path):
    quarantine = Quarantine(path)
    quarantine.add(WARD, "8q1s1k", splits(2), "died")
    whole = path.read_bytes()
    quarantine.add(WARD, "8q1s1k", splits(4), "died")
    longer = path.read_bytes()
    for length in range(len(whole) + 1, len(longer), 8):
        path.write_bytes(longer[:length])
        again = Quarantine(path)
        assert again.reason(WARD, "8q1s1k", splits(2)) == "died"
        again.add(WARD, "8q1s1k", splits(8), "died")
        last = Quarantine(path)
        assert last.reason(WARD, "8q1s1k", splits(2)) == "died"
        assert last.reason(WARD, "8q1s1k", splits(8)) == "died"
