import math

from hypothesis import given
from hypothesis import strategies as st

from mla_tune.shapes import BatchShape, RequestGroup, Workload
from mla_tune.shapes.buckets import bucket_start
from mla_tune.table.index import Index


def brute_force(workloads: list[Workload], shape: BatchShape) -> tuple[float, int]:
    """What the index stands for: how far every entry is, an exact one before one that spans."""
    scored = [
        (factor(shape, workload), shape not in workload.shapes, position)
        for position, workload in enumerate(workloads)
    ]
    nearest, _, position = min(scored, default=(math.inf, True, -1))
    return nearest, position if nearest < math.inf else -1


def factor(shape: BatchShape, workload: Workload) -> float:
    if shape in workload.shapes:
        return 1.0
    if len(shape.groups) > 1 or len(workload.shapes[0].groups) > 1:
        return math.inf
    asked, measured = shape.groups[0], workload.shapes[0].groups[0]
    if (asked.query_len == 1) != (measured.query_len == 1):
        return math.inf
    kv_lens = [case.max_kv_len for case in workload.shapes]
    inside = min(max(asked.kv_len, min(kv_lens)), max(kv_lens))
    pairs = (
        (asked.count, measured.count),
        (asked.query_len, measured.query_len),
        (asked.kv_len, inside),
    )
    return max(max(one / other, other / one) for one, other in pairs)


# Few distinct numbers, so that shapes meet, tie and span each other.
query_lens = st.sampled_from([1, 1, 1, 2, 3, 4, 8])
contexts = st.sampled_from([0, 1, 2, 3, 7, 8, 15, 31, 63, 1000])
counts = st.sampled_from([1, 2, 3, 4, 6, 8, 9, 64])


@st.composite
def uniform(draw):
    query_len = draw(query_lens)
    return BatchShape.of([RequestGroup(query_len, query_len + draw(contexts), draw(counts))])


@st.composite
def mixed(draw):
    groups = [RequestGroup(q, q + draw(contexts), draw(counts)) for q in (4, 1)]
    return BatchShape.of(groups)


@st.composite
def several_kv_lens(draw):
    query_len, count = draw(query_lens), draw(counts)
    lens = draw(st.lists(contexts, min_size=2, max_size=3, unique=True))
    listed = ",".join(str(query_len + length) for length in sorted(lens))
    return f"{count if count > 1 else ''}q{query_len}s{{{listed}}}"


batches = uniform() | mixed()
workloads = st.lists(
    (batches.map(str) | several_kv_lens()).map(Workload.parse), max_size=30, unique_by=str
)


@given(workloads, st.lists(batches, min_size=1, max_size=20), st.floats(1.0, 4.0))
def test_of_a_batch_only_its_own_entries_are_found(measured, asked, within):
    index = Index([str(workload) for workload in measured])
    for shape in [*asked, *(shape for workload in measured for shape in workload.shapes)]:
        own = {
            position: workload
            for position, workload in enumerate(measured)
            if of_one_batch(workload.shapes[0], shape)
        }
        factor, position = brute_force(list(own.values()), shape)
        found = (factor, list(own)[position]) if position >= 0 else (math.inf, -1)
        assert index.nearest(shape) == found
        for bound in (within, found[0]):
            answered = found if found[0] <= bound else (math.inf, -1)
            assert index.nearest(shape, bound) == answered


def of_one_batch(one: BatchShape, other: BatchShape) -> bool:
    batches = [[(group.query_len, group.count) for group in shape.groups] for shape in (one, other)]
    return batches[0] == batches[1]


@given(workloads, st.lists(batches, min_size=1, max_size=20))
def test_in_a_bucket_are_the_entries_measured_in_it(measured, asked):
    index = Index([str(workload) for workload in measured])
    for shape in [*asked, *(shape for workload in measured for shape in workload.shapes)]:
        off, position = index.in_bucket(shape)
        exact = [place for place, each in enumerate(measured) if shape in each.shapes]
        beside = [
            place
            for place, each in enumerate(measured)
            for other in each.shapes
            if len(shape.groups) == 1 == len(other.groups) and of_one_batch(other, shape)
            if bucket_start(other.max_kv_len) == bucket_start(shape.max_kv_len)
        ]
        assert position == (exact or beside or [-1])[0]
        assert off == math.inf if position < 0 else 1 <= off < 1.125
