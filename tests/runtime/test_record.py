import json
from pathlib import Path

import pytest
from tabled_engine import WriteTable, cpu_header, entry
from test_matching import H200

from mla_tune.errors import InputError
from mla_tune.knobs import Plan
from mla_tune.runtime.from_record import shapes_from_record
from mla_tune.runtime.recorder import Recorder, record_files
from mla_tune.shapes.file import load_shapes


def recorded(path: Path, steps: list[tuple[str, str, int, int, int, int]]) -> None:
    """Record (mode, outcome, batch, query length, KV length, times)."""
    recorder = Recorder(path, H200)
    for mode, outcome, batch, query_len, kv_len, times in steps:
        for _ in range(times):
            recorder.add(mode, outcome, batch, query_len, batch * kv_len, kv_len)
    recorder.write()


def test_each_process_writes_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "served.json"
    for _ in range(2):
        recorded(path, [("graph", "hit", 8, 1, 1000, 3)])
    assert len(record_files(path)) == 2
    assert not list(tmp_path.glob("*.tmp"))


def test_nothing_served_writes_nothing(tmp_path: Path) -> None:
    recorded(tmp_path / "served.json", [])
    assert record_files(tmp_path / "served.json") == []


def test_a_full_disk_costs_the_record_and_not_the_engine(
    tmp_path: Path, messages: list[str]
) -> None:
    recorded(tmp_path / "gone" / "served.json", [("graph", "hit", 8, 1, 1000, 1)])
    assert "cannot be written" in messages[0]


def test_a_record_becomes_a_shapes_file_with_the_misses_first(tmp_path: Path) -> None:
    path = tmp_path / "served.json"
    recorded(path, [("graph", "hit", 32, 1, 1000, 50), ("graph", "miss", 64, 1, 4100, 7)])
    recorded(path, [("graph", "hit", 32, 1, 1100, 20), ("eager", "miss", 2, 300, 2048, 1)])
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text(shapes_from_record(path))
    read = load_shapes(shapes)
    assert [(str(case.shape), case.weight) for case in read.cases] == [
        ("64q1s4k", 7.0),
        ("2q300s2k", 1.0),
        ("32q1s1k", 70.0),
    ]
    assert read.models[0].num_q_heads == 16
    assert read.modes == ("graph", "eager")
    assert read.backends == ("TRITON_MLA",)


def test_new_tables_decide_what_is_still_missing(tmp_path: Path, write_table: WriteTable) -> None:
    path = tmp_path / "served.json"
    recorded(path, [("graph", "miss", 64, 1, 4096, 9), ("graph", "miss", 8, 1, 1024, 2)])
    table = write_table(cpu_header(), entry("64q1s4k", Plan(num_kv_splits=4)))
    text = shapes_from_record(path, [table])
    assert text.index("without an entry") < text.index("8q1s1k") < text.index("with an entry")
    assert text.index("with an entry") < text.index("64q1s4k")


def test_records_of_different_engines_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "served.json"
    for _ in range(2):
        recorded(path, [("graph", "hit", 8, 1, 1000, 3)])
    file = record_files(path)[0]
    document = json.loads(file.read_text())
    file.write_text(json.dumps(document | {"kv_cache_dtype": "fp8"}))
    with pytest.raises(InputError, match="kv_cache_dtype"):
        shapes_from_record(path)


@pytest.mark.parametrize("content", ["", "[1]", '{"format": 99}'])
def test_what_is_no_record_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "served.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"served\.json"):
        shapes_from_record(path)


def test_no_record_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no record"):
        shapes_from_record(tmp_path / "served.json")
