"""The histogram of served steps."""

import random

from hypothesis import given
from hypothesis import strategies as st

from mla_tune.shapes.buckets import bucket_start
from mla_tune.traffic.histogram import (
    MOST_KINDS,
    StepKind,
    TrafficHistogram,
    kv_bucket_end,
    kv_bucket_middle,
    kv_bucket_start,
)

lengths = st.integers(1, 2**30)


def nearest_power_of_two(length: int) -> int:
    low = 1 << (length.bit_length() - 1)
    return low if length**2 <= 2 * low**2 else 2 * low


@given(lengths)
def test_a_length_rounds_to_the_same_power_of_two_as_its_bucket(length: int) -> None:
    start = kv_bucket_start(length)
    assert start <= length
    assert kv_bucket_start(start) == start
    if length > 16:
        assert nearest_power_of_two(start) == nearest_power_of_two(length)


def test_a_length_has_two_buckets_an_octave_and_short_ones_are_exact() -> None:
    starts = {kv_bucket_start(length) for length in range(1, 4096)}
    assert starts == {*range(1, 17), 23, 32, 46, 64, 91, 128, 182, 256, 363} | {
        *(512, 725, 1024, 1449, 2048, 2897)
    }


@given(lengths | st.integers(1, 40))
def test_a_bucket_has_a_middle_and_an_end(length: int) -> None:
    start, middle, end = (f(length) for f in (kv_bucket_start, kv_bucket_middle, kv_bucket_end))
    assert kv_bucket_start(middle) == kv_bucket_start(end) == start
    assert kv_bucket_start(end + 1) > start
    assert middle == kv_bucket_middle(start)
    assert middle - start <= end - middle <= middle - start + 1


@given(lengths)
def test_a_batch_is_off_by_an_eighth_at_most(requests: int) -> None:
    bucket = bucket_start(requests)
    assert bucket <= requests < 1.125 * bucket + 1
    assert bucket_start(bucket) == bucket


def kind(number: int, mode: str = "graph") -> StepKind:
    return StepKind(mode, "hit", number, 1, 1024, 1024)


def test_steps_beyond_the_most_kinds_are_counted_by_mode_and_outcome() -> None:
    served = TrafficHistogram()
    for number in range(MOST_KINDS + 5):
        served.add(kind(number), 1)
    served.add(kind(0), 1)
    assert len(served.counts) == MOST_KINDS
    assert served.others == {("graph", "hit"): 5}
    assert served.total == MOST_KINDS + 6


def test_a_merge_keeps_the_most_served_kinds_and_every_step() -> None:
    served, newer = TrafficHistogram(), TrafficHistogram()
    for number in range(MOST_KINDS):
        for _ in range(2 if number < 10 else 1):
            served.add(kind(number), 3)
    for number in range(5):
        for _ in range(3):
            newer.add(kind(number, "eager"), 4)
    served.merge(newer)
    assert len(served.counts) == MOST_KINDS
    assert served.counts[kind(0, "eager")] == [3, 12]
    assert served.counts[kind(0)] == [2, 6]
    assert served.others == {("graph", "hit"): 5}
    assert served.total == MOST_KINDS + 10 + 15


def test_synthetic_traffic_has_few_kinds() -> None:
    """Requests come and go: format 1, exact in the batch, had seven times as many kinds."""
    draw, served, lens, format_1 = random.Random(0), TrafficHistogram(), [0] * 40, set()
    for _ in range(8_000):
        batch = max(1, min(400, len(lens) + draw.randint(-9, 9)))
        lens = [length + 1 for length in lens[:batch]]
        lens += [int(draw.lognormvariate(7.2, 1.2)) + 1 for _ in range(batch - len(lens))]
        lens[draw.randrange(batch)] = int(draw.lognormvariate(7.2, 1.2)) + 1
        mean, longest = sum(lens) // batch, max(lens)
        format_1.add((batch, bucket_start(mean), bucket_start(longest)))
        starts = map(kv_bucket_start, (mean, longest))
        served.add(StepKind("eager", "miss", bucket_start(batch), 1, *starts), batch)
    assert len(served.counts) < 700
    assert len(served.counts) < len(format_1) / 7
