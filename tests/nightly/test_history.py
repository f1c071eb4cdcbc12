from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_device import ENVIRONMENT
from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.files import own_file
from mla_tune.nightly.history import History, history_path
from mla_tune.shapes import MlaDimensions
from mla_tune.table import Header, TableFile
from readings import nights, reading

SHIPPED = Path(__file__).parents[2] / "tuned_configs"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t.history.jsonl"


def test_what_is_appended_is_read_again_by_time(path):
    assert History.load(path).readings == ()
    History(path).append(nights([1.0, 2.0])[1:])
    kept = History.load(path).append(nights([1.0]))
    assert len(kept.readings) == 2
    assert History.load(path).readings == tuple(nights([1.0, 2.0]))
    assert len(path.read_text().splitlines()) == 2


def test_a_torn_last_line_costs_that_line_alone(path):
    History(path).append(nights([1.0, 2.0]))
    whole = path.read_bytes()
    for cut in (2, 20, len(whole.splitlines()[1])):
        path.write_bytes(whole[:-cut])
        kept = History.load(path)
        assert len(kept.readings) == 1
        assert kept.notices == (f"{path}:2: left out, torn by a kill",)
        kept.append([reading(5)])
        again = History.load(path)
        assert [each.day for each in again.readings] == ["2026-11-01", "2026-11-06"]
        assert "not a reading" in again.notices[0]


def test_a_last_line_that_lacks_its_end_alone_is_read(path):
    History(path).append(nights([1.0, 2.0]))
    path.write_bytes(path.read_bytes()[:-1])
    kept = History.load(path)
    assert (len(kept.readings), kept.notices) == (2, ())
    kept.append([reading(5)])
    assert len(History.load(path).readings) == 3


def test_the_first_line_may_be_torn_too(path):
    path.write_bytes(b'{"form')
    History.load(path).append([reading(5)])
    assert len(History.load(path).readings) == 1
    path.write_bytes(b"{")
    History.load(path).append([reading(5)])
    assert len(History.load(path).readings) == 1


def test_a_full_disk_leaves_the_file_as_it_was(path, monkeypatch):
    History(path).append([reading(0)])
    before = path.read_bytes()

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(own_file.os, "fsync", full)
    with pytest.raises(EnvironmentFailure, match="No space left"):
        History.load(path).append([reading(1)])
    assert path.read_bytes() == before


def test_many_damaged_lines_are_named_in_few_lines(path):
    path.write_text("nonsense\n" * 1000)
    History(path).append([reading(0)])
    kept = History.load(path)
    assert len(kept.readings) == 1
    assert len(kept.notices) == 6
    assert "995 more lines" in kept.notices[-1]


@given(st.binary(max_size=300))
def test_whatever_is_in_the_file_is_read_or_named(content):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "h.jsonl"
        path.write_bytes(content + b"\n")
        History(path).append([reading(0)])
        assert History.load(path).readings[-1:] == (reading(0),)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        History.load(tmp_path)


def test_releases_of_vllm_share_a_history(tmp_path):
    (shipped,) = SHIPPED.glob("TRITON_MLA-NVIDIA_H100*heads_16*")
    header = TableFile.load(shipped).header
    newer = header.model_copy(update={"software": header.software | {"vllm": "0.34.1rc1"}})
    name = "TRITON_MLA-NVIDIA_H100_80GB_HBM3-heads_16-kv_auto-graph.history.jsonl"
    assert history_path(tmp_path, header) == history_path(tmp_path, newer) == tmp_path / name


def test_a_table_without_vllm_has_a_history_too(tmp_path):
    header = Header.of(ENVIRONMENT, "TORCH_MLA", MlaDimensions(2), "auto", "eager", 4096)
    assert history_path(tmp_path, header).name == (
        "TORCH_MLA-Fake_Device-heads_2-kv_auto-eager.history.jsonl"
    )
