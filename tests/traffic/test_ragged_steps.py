"""From served steps to the ragged batches of a shapes file."""

from collections import Counter
from itertools import groupby

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.shapes.file import checked_shapes
from mla_tune.shapes.mapping import MappingDocument
from mla_tune.shapes.ragged import RaggedSpec
from mla_tune.traffic.histogram import StepKind, kv_bucket_middle
from mla_tune.traffic.ragged_steps import MOST_OF_SIZE, ragged_lines, ragged_of
from mla_tune.traffic.step_parts import StepPart, kind_of


def served(*rows: tuple[int, int, int, int], mode: str = "graph") -> dict[StepKind, int]:
    """Steps of (batch, mean, longest, how many)."""
    found: Counter[StepKind] = Counter()
    for batch, mean, longest, steps in rows:
        found[kind_of(mode, "hit", StepPart(batch, 1, batch * mean, longest, batch))] += steps
    return found


def test_steps_of_few_kinds_are_named_as_they_were() -> None:
    steps = served((8, 1200, 4800, 600), (8, 2400, 9600, 300), (8, 4096, 4096, 100))
    assert ragged_of(steps, 131072) == [
        RaggedSpec(8, 1, 1232, 4944, 0.6),
        RaggedSpec(8, 1, 2464, 9888, 0.3),
    ]


def test_many_kinds_are_cut_into_parts_of_about_as_many_steps() -> None:
    rows = [(32, 1 << n, 1 << m, 10) for n in range(8, 14) for m in range(n + 2, n + 5)]
    found = ragged_of(served(*rows), 131072)
    assert len(found) == MOST_OF_SIZE
    assert [spec.longest_kv for spec in found] == sorted(spec.longest_kv for spec in found)
    assert all(0.2 < spec.share < 0.3 for spec in found)
    # Each is the average of its part, so that together they are that of all steps.
    middles = [(kv_bucket_middle(mean), kv_bucket_middle(longest)) for _, mean, longest, _ in rows]
    for axis, of_spec in ((0, "mean_kv"), (1, "longest_kv")):
        average = sum(pair[axis] for pair in middles) / len(middles)
        weighted = sum(getattr(spec, of_spec) * spec.share for spec in found)
        assert weighted / sum(spec.share for spec in found) == pytest.approx(average, rel=0.01)


def test_single_requests_eager_steps_and_lengths_nearly_alike_are_not_ragged() -> None:
    assert ragged_of(served((8, 1024, 8192, 500), mode="eager"), 131072) == []
    assert ragged_of(served((1, 1024, 1024, 500), (8, 1024, 1448, 500)), 131072) == []


def test_of_a_size_with_few_steps_nothing_is_said() -> None:
    steps = served((8, 1024, 8192, 99), (16, 1024, 8192, 100))
    assert [spec.requests for spec in ragged_of(steps, 131072)] == [16]


def test_uniform_batches_keep_a_share() -> None:
    (spec,) = ragged_of(served((8, 1024, 4096, 1000)), 131072)
    assert spec.share == 0.95


def test_two_requests_share_what_they_have() -> None:
    """One of 1.5 to 2 times the mean: by their half octaves the other would have nothing."""
    (spec,) = ragged_of(served((2, 1024, 2048, 1000)), 131072)
    assert (spec.mean_kv, spec.longest_kv) == (1232, 1232 + 1232 * 3 // 4)


def test_no_request_is_longer_than_the_engine_admits() -> None:
    (spec,) = ragged_of(served((8, 1024, 2900, 1000)), 3000)
    assert spec.longest_kv == 3000


rows = st.tuples(
    st.integers(1, 300), st.integers(1, 30_000), st.floats(1, 40), st.integers(1, 10_000)
)


@given(st.lists(rows, max_size=40))
def test_any_traffic_makes_a_section_that_reads_back(drawn) -> None:
    steps = served(
        *(
            (batch, mean, min(int(mean * skew), batch * (mean - 1) + 1, 40_000), count)
            for batch, mean, skew, count in drawn
        )
    )
    found = ragged_of(steps, 40_000)
    text = "\n".join(ragged_lines(found))
    section = yaml.safe_load(text) or {}
    head = {"engine": {"modes": ["graph"], "max_model_len": 40_000}, "batch_specs": ["8q1s1k"]}
    read = checked_shapes(MappingDocument.of(head | section)).ragged
    assert list(read.specs) == found
    for _, of_size in groupby(found, key=lambda spec: spec.size):
        shares = [spec.share for spec in of_size]
        assert len(shares) <= MOST_OF_SIZE
        assert sum(shares) < 1
