"""What a record of served steps leaves of a graph table's guards."""

import math
from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fake_device import ENVIRONMENT
from mla_tune.shapes import Workload
from mla_tune.shapes.file import checked_shapes
from mla_tune.shapes.mapping import MappingDocument
from mla_tune.shapes.served_reach import ServedReach
from mla_tune.traffic.histogram import kv_bucket_end
from mla_tune.traffic.merged import MergedTraffic
from mla_tune.traffic.served_lengths import ServedLengths
from mla_tune.traffic.step_parts import StepPart, kind_of
from mla_tune.tuning.graph_cases import graph_cases
from mla_tune.tuning.graph_guards import GraphGuards

SHAPES = checked_shapes(
    MappingDocument.of(
        {
            "model": "deepseek-v2-lite",
            "engine": {"modes": "graph", "max_model_len": 131072},
            "graph": {"capture_sizes": [1, 64], "kv_lens": [1024], "kv_cache_tokens": 1000000},
        }
    )
)
SHARE = 0.005


def guarded(*steps, told=lambda _: None, fits=lambda _: True, record=True):
    """The workloads of `SHAPES` guarded by a record of (batch, longest KV length, times)."""
    counts = Counter()
    for batch, longest, times in steps:
        part = StepPart(batch, 1, longest + batch - 1, longest, batch)
        counts[kind_of("graph", "hit", part)] += times
    traffic = MergedTraffic({"max_model_len": 131072}, counts)
    served = ServedLengths(Path("served.json"), traffic, SHARE) if record else None
    guards = GraphGuards("TRITON_MLA", SHAPES, fits, served, told)
    return guards.around(Workload.graph(graph_cases(SHAPES, ENVIRONMENT)))


BY_ENGINE = guarded(record=False)


def longest(workload):
    return max(shape.max_kv_len for shape in workload.shapes)


def test_guards_end_where_what_was_served_does():
    told = []
    one, many = guarded((1, 9000, 20_000), (64, 30_000, 20_000), told=told.append)
    assert one.measured_key == "q1s1k+{256,2k,4k,8k,11585}"
    assert one.served == ServedReach(to=11585, beyond=0.0)
    # So many requests fit into the cache at 15,625 tokens each, but one may be longer.
    assert many.holds_to == BY_ENGINE[1].holds_to == 15625
    assert many.shapes[-1].max_kv_len == many.served.to == kv_bucket_end(30_000)
    assert BY_ENGINE[1].shapes[-1].max_kv_len == 131072
    assert told == [
        "TRITON_MLA, graph: 2 of 2 batch sizes are guarded as far as served.json reaches"
    ]


def test_where_the_record_says_too_little_guards_are_as_by_default():
    told = []
    assert guarded((1, 9000, 9_999), (64, 131_072, 20_000), told=told.append) == BY_ENGINE
    assert told[0].startswith("TRITON_MLA, graph: 0 of 2 batch sizes")
    assert "fewer than 10000 recorded steps" in told[0]


def test_guards_that_memory_ends_are_told_of_by_what_was_served():
    told = []
    (one, _) = guarded(
        *((1, 9000, 20_000), (64, 900, 20_000)),
        told=told.append,
        fits=lambda shapes: max(shape.max_kv_len for shape in shapes) <= 4096,
    )
    assert (one.holds_to, one.served.to) == (4096, 11585)
    assert "1 batch sizes can be measured to less" in told[1]


@given(
    st.dictionaries(
        st.tuples(st.sampled_from([1, 64]), st.integers(2, 131_072)),
        st.integers(1, 40_000),
        max_size=10,
    )
)
def test_few_of_the_recorded_steps_are_beyond_the_longest_guard_whatever_the_record(steps):
    found = guarded(*((*key, times) for key, times in steps.items()))
    for workload, unbounded in zip(found, BY_ENGINE, strict=True):
        if workload.served is None:
            assert workload == unbounded
            continue
        requests = workload.listed[0].shape.num_requests
        of_size = {kv_len: n for (batch, kv_len), n in steps.items() if batch == requests}
        beyond = sum(n for kv_len, n in of_size.items() if kv_len > longest(workload))
        assert beyond <= SHARE * sum(of_size.values())
        assert workload.served.beyond <= SHARE
        guards = [case.shape.max_kv_len for case in workload.cases if case.is_guard]
        assert all(kv_len <= workload.served.to for kv_len in guards)


def means(workload):
    """Of its ragged batches of more than two lengths, in sixteenths of an octave."""
    ragged = [case.shape for case in workload.cases if len(case.shape.groups) > 2]
    return [round(16 * math.log2(shape.num_kv_tokens / shape.num_requests)) for shape in ragged]


def test_long_requests_are_guarded_as_ragged_batches_too():
    uniform = [each.shape for each in BY_ENGINE[1].cases if not each.is_ragged]
    lengths = [shape.max_kv_len for shape in uniform if shape.max_kv_len >= 1024]
    assert lengths == [1024, 2048, 4096, 8192, 15625]
    assert means(BY_ENGINE[1]) == [round(16 * math.log2(length)) for length in lengths]
    weights = [case.weight for case in BY_ENGINE[1].cases if len(case.shape.groups) > 2]
    assert weights == [0.5, 0.0, 0.0, 0.0, 0.0]
    # One request has nothing to differ from.
    assert all(case.shape.is_uniform for case in BY_ENGINE[0].cases)


@given(st.integers(100_000, 10_000_000))
def test_memory_ends_guards_before_it_takes_the_ragged_batches(most_tokens):
    def fits(shapes):
        return sum(shape.num_kv_tokens for shape in shapes) <= most_tokens

    (_, many) = guarded(fits=fits, record=False)
    ragged = [case.shape for case in BY_ENGINE[1].cases if case.is_ragged]
    listed = [case.shape for case in many.listed]
    assert fits(many.shapes)
    assert many.holds_ragged == fits([*listed, ragged[0]])
