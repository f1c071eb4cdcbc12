"""From a record to how long the requests of a captured size are."""

from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mla_tune.shapes import MlaDimensions
from mla_tune.shapes.served_reach import ServedReach
from mla_tune.traffic.histogram import StepKind, kv_bucket_end, kv_bucket_start
from mla_tune.traffic.merged import MergedTraffic
from mla_tune.traffic.served_lengths import ServedLengths
from mla_tune.traffic.step_parts import StepPart, kind_of
from tabled_engine import DIMENSIONS


def lengths(
    *steps: tuple[int, int, int], share: float = 0.005, others: int = 0, **engine: Any
) -> ServedLengths:
    """Of a record of (batch, longest KV length, how many) steps."""
    counts: Counter[StepKind] = Counter()
    for batch, longest, times in steps:
        part = StepPart(batch, 1, longest + batch - 1, longest, batch)
        counts[kind_of("graph", "hit", part)] += times
    facts = {"model": DIMENSIONS, "max_model_len": 131072} | engine
    return ServedLengths(
        Path("served.json"), MergedTraffic(facts, counts, others=Counter(graph=others)), share
    )


def test_all_but_a_share_of_a_sizes_steps_are_reached() -> None:
    served = lengths((8, 3000, 199_000), (8, 30_000, 600), (8, 60_000, 400), (4, 90_000, 20_000))
    assert served.reach(8, 1) == ServedReach(to=kv_bucket_end(3000), beyond=0.005)
    few = lengths((8, 3000, 199_000), (8, 30_000, 601), (8, 60_000, 400))
    assert few.reach(8, 1) == ServedReach(to=kv_bucket_end(30_000), beyond=400 / 200_001)


def test_few_steps_say_nothing() -> None:
    assert lengths((8, 3000, 10_000)).reach(8, 1) is not None
    assert lengths((8, 3000, 9_999)).reach(8, 1) is None
    assert lengths((8, 3000, 5_000), share=0.01).reach(8, 1) is not None
    assert lengths((8, 3000, 10_000)).reach(8, 2) is None


def test_requests_as_long_as_the_engine_admits_could_have_been_longer() -> None:
    assert lengths((8, 3000, 10_000), max_model_len=4096).reach(8, 1) is None
    assert lengths((8, 2800, 10_000), max_model_len=4096).reach(8, 1) is not None


def test_a_record_is_of_one_model_and_its_heads() -> None:
    assert lengths().is_of(MlaDimensions(**DIMENSIONS))
    assert not lengths().is_of(MlaDimensions(**DIMENSIONS | {"num_q_heads": 8}))


recorded = st.dictionaries(
    st.tuples(st.sampled_from([1, 8]), st.integers(2, 120_000)), st.integers(1, 40_000), max_size=12
)


@given(recorded, st.sampled_from([0.0001, 0.005, 0.05]), st.just(0) | st.integers(0, 300))
def test_no_more_than_the_share_is_beyond_whatever_the_record(
    steps: dict[tuple[int, int], int], share: float, others: int
) -> None:
    served = lengths(*((*key, times) for key, times in steps.items()), share=share, others=others)
    for batch in (1, 8):
        reach = served.reach(batch, 1)
        of_size = {longest: n for (size, longest), n in steps.items() if size == batch}
        if reach is None:
            continue
        total = sum(of_size.values()) + others
        # What was not told apart may all have been longer requests of this size.
        longer = others + sum(n for longest, n in of_size.items() if longest > reach.to)
        assert longer / total <= share
        assert reach.beyond == longer / total
        # And no shorter length would do.
        in_last = [n for longest, n in of_size.items() if kv_bucket_end(longest) == reach.to]
        shorter = any(kv_bucket_start(longest) < kv_bucket_start(reach.to) for longest in of_size)
        assert not shorter or (longer + sum(in_last)) / total > share
