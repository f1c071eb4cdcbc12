"""A table's model: as text, in lookups, and how it gets into the file."""

import pytest

from mla_tune.errors import InputError
from mla_tune.files.document import Document
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes import BatchShape
from mla_tune.table import Publication, Table, TableFile, merge
from mla_tune.table.between import Between
from mla_tune.table.store import TABLE
from mla_tune.table.text import between_line, header_text
from modelled_table import ENTRIES, HEADER, MODEL, entry, modelled


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "t.yaml"
    Publication(path, HEADER).write(ENTRIES, MODEL)
    return path


def test_a_model_is_read_as_it_was_written(path):
    file = TableFile.load(path)
    assert file.between == MODEL
    assert file.header.schema_version == 3
    assert Table.load(path).between == MODEL


def test_a_table_without_a_model_stays_one_that_older_readers_have(tmp_path):
    merge(tmp_path / "t.yaml", HEADER, ENTRIES)
    assert (tmp_path / "t.yaml").read_text().startswith("schema_version: 2\n")


def test_the_same_model_again_changes_no_byte(path):
    before = path.read_bytes()
    Publication(path, HEADER).write([], MODEL)
    assert path.read_bytes() == before


def test_another_model_changes_its_line_alone(path):
    before = path.read_text().splitlines()
    Publication(path, HEADER).write([], MODEL.model_copy(update={"error": 0.05}))
    after = path.read_text().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert [old.split(":")[0] for old, _ in changed] == ["between"]
    assert TableFile.load(path).between.error == 0.05


def test_a_model_of_fewer_points_does_not_replace_one_of_more(path):
    Publication(path, HEADER).write([], MODEL.model_copy(update={"points": 35, "error": 0.0}))
    assert TableFile.load(path).between == MODEL


def test_entries_that_are_added_leave_the_model(path):
    merge(path, HEADER, [entry("16q1s1k", Plan(num_kv_splits=4))])
    file = TableFile.load(path)
    assert file.between == MODEL
    assert len(file.entries) == len(ENTRIES) + 1


def test_a_table_that_is_spelled_anew_keeps_its_model(path):
    flow = path.read_text().replace("    latency_us: 10.0\n    default_us: 20.0\n", "", 1)
    flow = flow.split("entries:")[0] + "entries: [{shape: q1s1k, plan: default, latency_us: 1}]\n"
    path.write_text(flow)
    merge(path, HEADER, ENTRIES)
    assert TableFile.load(path).between == MODEL


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"us": {"launch": 1.0, "wave": -1.0}}, "between.us.wave"),
        ({"us": {"waves": 1.0}}, "latency has no term 'waves'"),
        ({"us": {"launch": 0.0, "wave": 1.0}}, "a launch of no time"),
        ({"us": {"launch": 1e300}}, "between.us.launch"),
        ({"cut": "odd"}, "cut 'odd' is not known here"),
        ({"cut": "scheduled"}, "TRITON_MLA does not cut a batch by 'scheduled'"),
        ({"largest": ((2**20, 1024),)}, "between.largest"),
        ({"values": {600: 1024}}, "TRITON_MLA cannot have num_kv_splits 600"),
        ({"defaults": {1024: 0}}, "TRITON_MLA cannot have num_kv_splits 0"),
        ({"defaults": {}}, "between.defaults"),
        ({"largest": ()}, "between.largest"),
        ({"gate": float("nan")}, "between.gate"),
    ],
)
def test_a_wrong_model_is_refused_by_line(change, says):
    line = between_line(Between.model_construct(**MODEL.model_dump() | change))
    text = header_text(HEADER).replace("schema_version: 2", "schema_version: 3")
    text = text.replace("entries:", f"{line}\nentries:")
    with pytest.raises(InputError) as caught:
        TableFile.from_document(Document.parse("t.yaml", text, TABLE))
    assert says in str(caught.value)
    assert "t.yaml:" in str(caught.value)


def test_before_version_3_a_model_is_an_unknown_key():
    text = header_text(HEADER).replace("entries:", f"{between_line(MODEL)}\nentries:")
    with pytest.raises(InputError, match="between"):
        TableFile.from_document(Document.parse("t.yaml", text, TABLE))


def test_an_entry_that_was_measured_wins_over_the_model():
    found = modelled().lookup(batch=32, kv_len=4096)
    assert (found.plan, found.is_exact) == (Plan(num_kv_splits=2), True)
    found = modelled().lookup(batch=64, kv_len=4096)
    assert (found.plan, found.is_exact) == (UNTUNED, True)


def test_between_entries_the_model_answers_where_it_is_proven():
    found = modelled().lookup(batch=1, kv_len=4096)
    assert found.plan == Plan(num_kv_splits=32)
    assert found.is_hit
    assert not found.is_exact
    assert found.entry is None
    assert found.predicted_gain == pytest.approx(1.75, abs=0.02)


def test_no_gain_is_the_default_and_an_unproven_one_a_miss():
    found = modelled().lookup(batch=31, kv_len=16000)
    assert (found.is_hit, found.plan) == (True, UNTUNED)
    found = modelled(error=5.0).lookup(batch=1, kv_len=4096)
    assert (found.is_hit, found.plan) == (False, UNTUNED)
    assert "may be 500.0% too large" in found.reason


def test_an_answer_holds_for_a_whole_bucket_as_in_an_engine():
    found = modelled().lookup(batch=31, kv_len=16384)
    assert not found.is_hit
    assert found.reason.startswith("outside of what was measured")


def test_a_neighbour_does_not_answer_in_place_of_the_model():
    found = modelled().lookup(batch=65, kv_len=5000)
    assert not found.is_hit
    assert found.reason.startswith("outside of what was measured")


def test_a_graph_table_has_no_use_for_a_model():
    header = HEADER.model_copy(
        update={"engine": HEADER.engine.model_copy(update={"mode": "graph"})}
    )
    table = Table(header, ENTRIES, MODEL)
    assert not table.lookup(batch=1, kv_len=4096).is_hit
    assert table.lookup(batch=32, kv_len=5000).entry == ENTRIES[0]
    assert table.answer(1, (4096,)) is None


def test_longer_queries_are_answered_by_their_own_entry_alone():
    assert modelled().lookup(batch=8, kv_len=4200, query_len=16).entry.shape == "8q16s4k"
    for batch, kv_len, query_len in ((8, 5000, 16), (9, 4096, 16), (8, 4096, 17)):
        assert not modelled().lookup(batch=batch, kv_len=kv_len, query_len=query_len).is_hit


def test_between_two_defaults_a_plan_has_to_beat_each_of_them():
    assert MODEL.length(1024).defaults == (2,)
    assert MODEL.length(2000).defaults == (2, 4, 8)
    assert MODEL.length(9000).defaults == (8,)
    assert MODEL.length(10**6).defaults == (8,)


def test_a_ragged_batch_is_answered_by_its_mean_and_its_longest():
    table = modelled()
    skewed = table.lookup_shape(BatchShape.parse("q1s8k_7q1s2k"))
    assert skewed.is_hit
    assert skewed.predicted_gain is not None
    alike = table.lookup_shape(BatchShape.parse("2q1s4k_31q1s4000"))
    assert alike.plan == table.lookup(batch=33, kv_len=4096).plan
    assert not table.lookup_shape(BatchShape.parse("q2k_31q1s2k")).is_hit
