"""From a record to a shapes file."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mla_tune.errors import InputError
from mla_tune.plan.plan import Plan
from mla_tune.shapes.file import load_shapes
from mla_tune.shapes.ragged import RaggedSpec
from mla_tune.table import Publication
from mla_tune.traffic.histogram_file import HistogramFile, histogram_files
from mla_tune.traffic.shapes import MOST_SHAPES, shapes_from_traffic
from mla_tune.traffic.step_parts import StepPart
from mla_tune.traffic.writer import TrafficWriter
from modelled_table import ENTRIES, HEADER, MODEL
from served_record import written
from tabled_engine import H200, WriteTable, cpu_header, entry


def recorded(path: Path, steps: list[tuple[str, str, int, int, int, int]]) -> None:
    """Count (mode, outcome, batch, query length, KV length, times)."""
    recorder = TrafficWriter(path, H200)
    for mode, outcome, batch, query_len, kv_len, times in steps:
        for _ in range(times):
            recorder.add(mode, outcome, StepPart(batch, query_len, batch * kv_len, kv_len, batch))
    recorder.close()


def weights(text: str, folder: Path) -> dict[str, float]:
    file = folder / "shapes.yaml"
    file.write_text(text)
    return {str(case.shape): case.weight for case in load_shapes(file).cases}


def test_a_record_becomes_a_shapes_file_with_the_misses_first(tmp_path: Path) -> None:
    path = tmp_path / "served.json"
    recorded(path, [("graph", "hit", 32, 1, 1000, 50), ("graph", "miss", 64, 1, 4100, 7)])
    recorded(path, [("graph", "hit", 32, 1, 1100, 20), ("eager", "miss", 2, 300, 2048, 1)])
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text(shapes_from_traffic(path))
    read = load_shapes(shapes)
    assert [(str(case.shape), case.weight) for case in read.cases] == [
        ("64q1s4k", 7.0),
        ("2q256s2k", 1.0),
        ("32q1s1k", 70.0),
    ]
    assert read.models[0].num_q_heads == 16
    assert read.modes == ("graph", "eager")
    assert read.backends == ("TRITON_MLA",)


def test_new_tables_decide_what_is_still_missing(tmp_path: Path, write_table: WriteTable) -> None:
    path = tmp_path / "served.json"
    recorded(path, [("graph", "miss", 64, 1, 4096, 9), ("graph", "miss", 8, 1, 1024, 2)])
    table = write_table(cpu_header(), entry("64q1s4k", Plan(num_kv_splits=4)))
    text = shapes_from_traffic(path, [table])
    assert text.index("without an entry") < text.index("8q1s1k") < text.index("with an entry")
    assert text.index("with an entry") < text.index("64q1s4k")


def test_records_of_different_engines_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "served.json"
    for _ in range(2):
        recorded(path, [("graph", "hit", 8, 1, 1000, 3)])
    file = histogram_files(path)[0]
    document = json.loads(file.read_text())
    file.write_text(json.dumps(document | {"kv_cache_dtype": "fp8"}))
    with pytest.raises(InputError, match="kv_cache_dtype"):
        shapes_from_traffic(path)


@pytest.mark.parametrize("content", ["", "[1]", '{"format": 99}'])
def test_what_is_no_record_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "served.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"served\.json"):
        shapes_from_traffic(path)


def test_no_record_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no traffic histogram"):
        shapes_from_traffic(tmp_path / "served.json")


def test_a_replayed_step_counts_at_its_mean_and_at_its_longest(tmp_path: Path) -> None:
    path = written(tmp_path / "served.json", ("graph", "hit", 8, 1, 2048, 32768, 10))
    assert weights(shapes_from_traffic(path), tmp_path) == {"8q1s2k": 5.0, "8q1s32k": 5.0}


def test_a_graph_that_is_not_full_says_how_many_requests_it_had(tmp_path: Path) -> None:
    row = {"mode": "graph", "outcome": "hit", "batch": 8, "query_len": 1, "kv_len": 4096}
    row |= {"longest_kv_len": 4096, "count": 4, "requests": 22}
    text = shapes_from_traffic(written(tmp_path / "served.json", steps=[row]))
    assert "- {spec: 8q1s4k, weight: 4}  # 5.5 requests a step" in text
    assert weights(text, tmp_path) == {"8q1s4k": 4.0}


def ragged(text: str, folder: Path) -> tuple[RaggedSpec, ...]:
    file = folder / "shapes.yaml"
    file.write_text(text)
    return load_shapes(file).ragged.specs


def test_ragged_steps_of_a_captured_size_become_ragged_batches_of_it(tmp_path: Path) -> None:
    rows = (
        ("graph", "hit", 8, 4, 1024, 4096, 300),
        ("graph", "miss", 8, 4, 1024, 1024, 100),
        ("eager", "skewed", 16, 1, 1024, 4096, 300),
    )
    text = shapes_from_traffic(written(tmp_path / "served.json", *rows))
    assert ragged(text, tmp_path) == (RaggedSpec(8, 4, 1232, 4944, 0.75),)
    # The uniform shapes are those of all steps.
    assert weights(text, tmp_path) == {"8q4s1k": 250.0, "8q4s4k": 150.0, "16q1s4k": 300.0}


def test_ragged_batches_are_of_the_sizes_that_are_kept(tmp_path: Path) -> None:
    rows = [("graph", "miss", batch, 1, 1024, 4096, 100 + batch) for batch in range(2, 120)]
    found = ragged(shapes_from_traffic(written(tmp_path / "served.json", *rows)), tmp_path)
    assert [spec.requests for spec in found] == list(range(20, 120))


def test_lengths_that_round_alike_are_one_case(tmp_path: Path) -> None:
    path = written(tmp_path / "served.json", ("graph", "hit", 8, 1, 4096, 5792, 3))
    assert weights(shapes_from_traffic(path), tmp_path) == {"8q1s4k": 3.0}


def test_an_eager_step_counts_at_its_longest_as_it_is_looked_up(tmp_path: Path) -> None:
    path = written(tmp_path / "served.json", ("eager", "miss", 8, 1, 2896, 4096, 3))
    assert weights(shapes_from_traffic(path), tmp_path) == {"8q1s4k": 3.0}


def test_what_no_entry_could_answer_comes_last_and_says_so(tmp_path: Path) -> None:
    path = written(
        tmp_path / "served.json",
        ("eager", "skewed", 8, 1, 1024, 16384, 90),
        ("eager", "miss", 4, 1, 1024, 1024, 1),
        ("eager", "hit", 2, 1, 1024, 1024, 30),
    )
    text = shapes_from_traffic(path)
    places = [text.index(spec) for spec in ("spec: 4q1s1k", "spec: 2q1s1k", "spec: 8q1s16k")]
    assert places == sorted(places)
    assert "over 1.5 times the mean" in text[places[1] : places[2]]


def test_the_model_of_a_table_may_answer_a_skewed_step(tmp_path: Path) -> None:
    path = written(
        tmp_path / "served.json",
        ("eager", "skewed", 8, 1, 2048, 8192, 5),
        ("eager", "skewed", 128, 1, 2048, 16384, 7),
    )
    table = tmp_path / "table.yaml"
    Publication(table, HEADER).write(ENTRIES, MODEL)
    text = shapes_from_traffic(path, [table])
    assert text.index("# with an entry") < text.index("8q1s8k") < text.index("# eager steps with")
    assert text.index("# eager steps with") < text.index("128q1s16k")


def test_a_length_is_never_rounded_up_past_the_longest_of_the_engine(tmp_path: Path) -> None:
    path = written(
        tmp_path / "served.json", ("graph", "hit", 8, 1, 2897, 2897, 1), max_model_len=3000
    )
    assert weights(shapes_from_traffic(path), tmp_path) == {"8q1s3000": 1.0}


def test_records_of_format_1_are_read_and_their_means_are_doubted(tmp_path: Path) -> None:
    path = written(tmp_path / "served.json", ("graph", "hit", 8, 1, 2560, 4096, 7), format=1)
    text = shapes_from_traffic(path)
    assert weights(text, tmp_path) == {"8q1s2k": 3.5, "8q1s4k": 3.5}
    assert "# Format 1: rows that pad a graph were counted in the means" in text
    padded = ("graph", "hit", 8, 1, 1024, 4096, 700)
    text = shapes_from_traffic(written(tmp_path / "served.json", padded, format=1))
    assert ragged(text, tmp_path) == ()


def test_steps_without_a_kind_of_their_own_stay_in_the_total(tmp_path: Path) -> None:
    others = [{"mode": "eager", "outcome": "miss", "count": 5}]
    path = written(tmp_path / "served.json", ("graph", "hit", 8, 1, 1024, 1024, 7), others=others)
    text = shapes_from_traffic(path)
    assert "12 steps" in text
    assert "# 5 of these were of rare kinds" in text


def test_only_the_most_served_shapes_are_kept(tmp_path: Path) -> None:
    rows = [("graph", "miss", batch, 1, 1024, 1024, batch) for batch in range(1, 300)]
    text = shapes_from_traffic(written(tmp_path / "served.json", *rows))
    kept = weights(text, tmp_path)
    assert len(kept) == MOST_SHAPES
    assert min(kept.values()) == 100
    assert "99 rarer shapes are left out" in text


def test_a_file_of_a_name_that_globs_or_breaks_lines_is_found_and_named(tmp_path: Path) -> None:
    path = tmp_path / "served [1]\n.json"
    recorded(path, [("graph", "hit", 8, 1, 1024, 1)])
    assert weights(shapes_from_traffic(path), tmp_path) == {"8q1s1k": 1.0}


def test_a_file_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mla_tune.traffic.histogram_file.MOST_BYTES", 1 << 10)
    path = tmp_path / "served.json"
    path.write_bytes(b"[" * (1 << 11))
    with pytest.raises(InputError, match="2048 bytes"):
        shapes_from_traffic(path)


def test_of_many_wrong_steps_the_first_is_named_alone(tmp_path: Path) -> None:
    """Findings about each of a million would fill the memory."""
    path = written(tmp_path / "served.json", steps=[{}] * 1000)
    data = json.loads(path.read_text())
    with pytest.raises(ValidationError) as caught:
        HistogramFile.model_validate(data)
    assert caught.value.error_count() < 10


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"steps": [{"mode": "graph"}]}, r"steps\.0\.outcome"),
        ({"steps": 3}, "steps"),
        ({"model": {}}, "model.num_q_heads"),
        ({"device": "H200\n- x"}, "device"),
        ({"backend": "TRITON_MLA; touch x #"}, "backend"),
        ({"max_model_len": 0}, "max_model_len"),
        ({"format": True}, "format"),
        ({"others": [{}]}, r"others\.0\.mode"),
    ],
)
def test_a_damaged_record_is_named_with_the_place(
    tmp_path: Path, damage: dict[str, Any], says: str
) -> None:
    path = written(tmp_path / "served.json", ("graph", "hit", 8, 1, 1024, 1024, 7), **damage)
    with pytest.raises(InputError, match=says):
        shapes_from_traffic(path)


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "8", None, 10**9, 10**400, [], {}])
@pytest.mark.parametrize("name", ["batch", "query_len", "kv_len", "longest_kv_len"])
def test_a_length_that_is_none_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    row = {"mode": "graph", "outcome": "hit", "batch": 8, "query_len": 1, "kv_len": 1024}
    row |= {"longest_kv_len": 1024, "count": 1, name: value}
    with pytest.raises(InputError, match=rf"steps\.0\.{name}"):
        shapes_from_traffic(written(tmp_path / "served.json", steps=[row]))


def test_what_is_tuned_is_what_was_served(tmp_path: Path) -> None:
    row = ("graph", "miss", 8, 1, 1024, 1024, 7)
    settings = {"quantization": "fp8_per_block", "block_size": 64}
    path = written(tmp_path / "served.json", row, **settings, max_cudagraph_capture_size=256)
    (tmp_path / "shapes.yaml").write_text(shapes_from_traffic(path))
    found = load_shapes(tmp_path / "shapes.yaml")
    assert found.quantization == "fp8_per_block"
    assert (found.block_size, found.max_cudagraph_capture_size) == (64, 256)


def test_weights_that_cannot_be_tuned_for_are_named(tmp_path: Path) -> None:
    row = ("graph", "miss", 8, 1, 1024, 1024, 7)
    path = written(tmp_path / "served.json", row, quantization="AWQMarlinLinearMethod")
    text = shapes_from_traffic(path)
    assert "# Its weights are AWQMarlinLinearMethod, which cannot be tuned for" in text
    (tmp_path / "shapes.yaml").write_text(text)
    assert load_shapes(tmp_path / "shapes.yaml").quantization == "none"
