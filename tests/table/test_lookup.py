import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import mla_tune
from fake_device import ENVIRONMENT
from mla_tune.errors import InputError
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes import BatchShape, MlaDimensions, RequestGroup
from mla_tune.shapes.buckets import bucket_start
from mla_tune.table import Entry, Header, Table, merge

HEADER = Header.of(ENVIRONMENT, "TORCH_MLA", MlaDimensions(2), "auto", "eager", 2**30)
GRAPH = Header.of(ENVIRONMENT, "TORCH_MLA", MlaDimensions(2), "auto", "graph", 2**30)


def table(*shapes: str, plan: Plan = UNTUNED, header: Header = HEADER) -> Table:
    """Entry number n takes n microseconds, counted from one."""
    rows = [
        Entry(shape=shape, plan=plan, latency_us=n, default_us=n)
        for n, shape in enumerate(shapes, start=1)
    ]
    return Table(header, tuple(rows))


@st.composite
def uniform(draw):
    query_len = draw(st.sampled_from([1, 1, 1, 2, 4, 7, 64]))
    kv_len = query_len + draw(st.integers(0, 20_000))
    return RequestGroup(query_len, kv_len, draw(st.integers(1, 300)))


def key(group: RequestGroup) -> str:
    return str(BatchShape.of([group]))


def distance(one: RequestGroup, other: RequestGroup) -> float:
    pairs = zip(
        (one.count, one.query_len, one.kv_len),
        (other.count, other.query_len, other.kv_len),
        strict=True,
    )
    if (one.query_len == 1) != (other.query_len == 1):
        return math.inf
    return max(max(a / b, b / a) for a, b in pairs)


groups = st.lists(uniform(), max_size=6, unique_by=key)


@given(groups, uniform())
def test_an_eager_table_answers_only_from_an_entry_of_the_batch_and_the_bucket(measured, asked):
    found = table(*map(key, measured)).lookup(
        batch=asked.count, kv_len=asked.kv_len, query_len=asked.query_len
    )
    own = [
        group
        for group in measured
        if (group.count, group.query_len) == (asked.count, asked.query_len)
        and bucket_start(group.kv_len) == bucket_start(asked.kv_len)
    ]
    assert found.is_hit == bool(own)
    assert bool(found.reason) != found.is_hit
    if found.is_hit:
        hit = BatchShape.parse(found.entry.shape).groups[0]
        assert hit in own
        assert found.factor == pytest.approx(distance(asked, hit))


@given(groups, uniform())
def test_the_exact_entry_wins(measured, asked):
    assume(key(asked) not in map(key, measured))
    found = table(*map(key, measured), key(asked)).lookup_shape(BatchShape.of([asked]))
    assert found.is_exact
    assert found.entry.shape == key(asked)


@pytest.mark.parametrize("shapes", [("8q1s{1k,8k}", "8q1s2k"), ("8q1s2k", "8q1s{1k,8k}")])
def test_the_exact_entry_wins_over_one_that_only_spans_the_length(shapes):
    found = table(*shapes, header=GRAPH).lookup(batch=8, kv_len=2048)
    assert found.entry.shape == "8q1s2k"


def test_a_graphs_entry_over_several_kv_lengths_answers_for_all_between_them():
    tabled = table("8q1s{1k,8k}", header=GRAPH)
    found = tabled.lookup(batch=8, kv_len=3000)
    assert found.is_hit
    assert found.factor == 1.0
    assert tabled.lookup(batch=8, kv_len=12 * 1024).factor == 1.5
    assert not tabled.lookup(batch=8, kv_len=13 * 1024).is_hit
    assert not table("8q1s{1k,8k}").lookup(batch=8, kv_len=3000).is_hit


@pytest.mark.parametrize(("measured", "asked"), [("8q1s1k", 2), ("8q2s1k", 1)])
def test_single_token_decode_and_longer_queries_never_answer_for_each_other(measured, asked):
    found = table(measured).lookup(batch=8, kv_len=1024, query_len=asked, within=1000.0)
    assert not found.is_hit
    assert "no entry of this batch and query length" in found.reason


def test_a_mixed_batch_is_answered_only_by_its_exact_entry():
    mixed = table("q256_8q1s1k")
    assert mixed.lookup_shape(BatchShape.parse("q256_8q1s1k")).is_exact
    assert not mixed.lookup_shape(BatchShape.parse("q256_8q1s1025"), within=100.0).is_hit
    assert not mixed.lookup_shape(BatchShape.parse("q256"), within=100.0).is_hit


@given(groups, uniform(), st.floats(1.0, 8.0))
def test_a_graph_table_answers_only_from_an_entry_of_the_batch(measured, asked, within):
    found = table(*map(key, measured), header=GRAPH).lookup(
        batch=asked.count, kv_len=asked.kv_len, query_len=asked.query_len, within=within
    )
    own = [g for g in measured if (g.count, g.query_len) == (asked.count, asked.query_len)]
    nearest = min((distance(asked, group) for group in own), default=math.inf)
    assert found.is_hit == (nearest <= within)
    if found.is_hit:
        hit = BatchShape.parse(found.entry.shape).groups[0]
        assert (hit.count, hit.query_len) == (asked.count, asked.query_len)
        assert distance(asked, hit) == found.factor == pytest.approx(nearest)


def test_a_size_between_two_of_a_graph_table_has_no_entry():
    tabled = table("24q1s{1k,16k}", "48q1s{1k,16k}", header=GRAPH)
    assert tabled.lookup(batch=24, kv_len=23_000).entry.shape == "24q1s{1k,16k}"
    found = tabled.lookup(batch=32, kv_len=4096)
    assert not found.is_hit
    assert "no entry of this batch and query length" in found.reason
    beyond = tabled.lookup(batch=48, kv_len=32768)
    assert "48q1s{1k,16k}, is off by a factor 2.00, beyond the bound of 1.5" in beyond.reason


@pytest.mark.parametrize(("kv_len", "shape"), [(1400, "8q1s1k"), (3000, "8q1s{4k,8k}")])
def test_of_several_entries_of_a_captured_size_the_nearest_by_kv_length_answers(kv_len, shape):
    tabled = table("8q1s1k", "8q1s{4k,8k}", header=GRAPH)
    assert tabled.lookup(batch=8, kv_len=kv_len).entry.shape == shape


def test_an_entry_of_a_graph_answers_up_to_the_length_that_it_was_measured_to():
    entry = Entry(shape="8q1s{1k,4k}", plan=UNTUNED, latency_us=1.0, holds_to=65536)
    tabled = Table(GRAPH, (entry,))
    assert tabled.lookup(batch=8, kv_len=65536).is_exact
    assert tabled.lookup(batch=8, kv_len=20_000).is_exact
    assert not tabled.lookup(batch=8, kv_len=200_000).is_hit
    assert not tabled.lookup(batch=9, kv_len=20_000).is_hit


def test_a_miss_says_what_was_nearest_and_how_far():
    found = table("8q1s1k").lookup(batch=8, kv_len=1280)
    assert (found.plan, found.entry) == (UNTUNED, None)
    assert "8q1s1k, is off by a factor 1.25, more than a few percent" in found.reason


def test_an_empty_table_misses():
    assert not table().lookup(batch=1, kv_len=1).is_hit


@pytest.mark.parametrize(
    "question",
    [
        {"batch": 0, "kv_len": 1},
        {"batch": 1, "kv_len": 0},
        {"batch": 1, "kv_len": 8, "query_len": 0},
        {"batch": 1, "kv_len": 8, "query_len": 9},
        {"batch": 1, "kv_len": 8, "within": 0.5},
        {"batch": 1, "kv_len": 8, "within": float("nan")},
        {"batch": 10**400, "kv_len": 8},
        {"batch": 1, "kv_len": 10**400},
    ],
)
def test_a_question_without_meaning_is_refused(question):
    with pytest.raises(InputError, match="cannot look up"):
        table("q1s1k").lookup(**question)


def test_lookups_from_python_as_the_readme_shows(tmp_path):
    path = tmp_path / "t.yaml"
    plan = Plan(num_kv_splits=2)
    merge(path, HEADER, [Entry(shape="32q1s4k", plan=plan, latency_us=1.0, default_us=1.0)])
    found = mla_tune.Table.load(path).lookup(batch=32, kv_len=4096, query_len=1)
    assert found.plan == plan


def test_no_bound_at_all_still_needs_an_entry_of_the_kind():
    assert not table("8q2s1k").lookup(batch=8, kv_len=1024, within=math.inf).is_hit


def test_a_table_and_what_it_answers_are_a_line_for_a_person():
    found = table("32q1s4k", "64q1s4k", plan=Plan(num_kv_splits=8), header=GRAPH)
    assert repr(found) == "<Table TORCH_MLA, Fake Device, 2 heads, KV auto, graph: 2 entries>"
    exact = found.lookup(batch=32, kv_len=4096)
    assert repr(exact) == "<Lookup 32q1s4k: num_kv_splits=8, exact>"
    near = found.lookup(batch=32, kv_len=5120)
    assert repr(near) == "<Lookup 32q1s5k: num_kv_splits=8, off by 1.25>"
    assert repr(found.lookup(batch=33, kv_len=4096)) == "<Lookup 33q1s4k: miss>"
