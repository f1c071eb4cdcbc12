from datetime import timedelta
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from fake_device import splits
from mla_tune.nightly.reading import Rival
from mla_tune.nightly.sentinels import (
    FEWEST,
    SHARE,
    fixed,
    nights_to_cover,
    rivals,
    rivals_in_turn,
    sentinels,
)
from mla_tune.plan.plan import UNTUNED
from mla_tune.table import Entry, Speedup
from readings import FIRST, reading


def entry(requests: int, gain: float = 1.5, **more) -> Entry:
    known = {
        "plan": splits(2),
        "latency_us": 100.0,
        "default_us": 100.0 * gain,
        "speedup": Speedup(median=gain, low=gain - 0.1, high=gain + 0.1),
    }
    return Entry(shape=f"{requests}q1s1k", **(known | more))


def target(entries, readings=(), path="t"):
    by_shape: dict = {}
    for each in readings:
        by_shape.setdefault(each.shape, []).append(each)
    history = SimpleNamespace(by_shape=by_shape)
    return SimpleNamespace(path=path, entries=tuple(entries), history=history)


def walk(sizes: list[int], nights: int) -> list[dict]:
    """What is chosen night after night in tables of so many entries."""
    tables = {f"t{n}": [entry(i) for i in range(2, size + 2)] for n, size in enumerate(sizes)}
    seen: dict = {name: [] for name in tables}
    found = []
    for number in range(nights):
        at = FIRST + timedelta(days=number)
        targets = [target(entries, seen[name], name) for name, entries in tables.items()]
        chosen = sentinels(targets, at - timedelta(hours=12))
        found.append(chosen)
        for name, entries in chosen.items():
            seen[name] += [reading(number, shape=each.shape) for each in entries]
    return found


@settings(max_examples=20)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=3))
def test_a_night_takes_its_share_and_some_nights_take_all(sizes):
    most = max(1, SHARE * sum(sizes))
    nights = walk(sizes, 12)
    assert all(sum(map(len, chosen.values())) <= most for chosen in nights)
    all_seen = {(name, each.shape) for night in nights for name in night for each in night[name]}
    assert len(all_seen) == sum(sizes)


@settings(max_examples=20)
@given(st.integers(1, 80))
def test_a_table_is_covered_in_the_nights_that_are_promised(size):
    nights = walk([size], nights_to_cover(size))
    assert len({each.shape for night in nights for each in night["t0"]}) == size


def test_a_large_table_is_covered_in_four_to_six_nights():
    assert {nights_to_cover(size) for size in range(4, 600)} <= {4, 5, 6, 7}
    assert nights_to_cover(51) == 4


def test_the_largest_gain_and_the_smallest_margin_are_looked_at_every_night():
    gains = [1.5] * FEWEST
    gains[3], gains[7] = 3.0, 1.12
    entries = [entry(requests, gain) for requests, gain in enumerate(gains, start=2)]
    assert [each.shape for each in fixed(entries)] == ["5q1s1k", "9q1s1k"]
    assert fixed(entries[:10]) == []


def test_what_was_seen_tonight_is_not_looked_at_again():
    entries = [entry(requests) for requests in range(2, 12)]
    seen = [reading(0, shape=each.shape) for each in entries[:3]]
    assert sentinels([target(entries, seen)], FIRST - timedelta(hours=12)) == {}
    (chosen,) = sentinels([target(entries, seen[:2])], FIRST - timedelta(hours=12)).values()
    assert [each.shape for each in chosen] == ["4q1s1k"]


def test_what_was_never_compared_is_no_sentinel():
    unproven = entry(2, plan=UNTUNED, unproven=splits(2), default_us=None, speedup=None)
    assert sentinels([target([unproven])], FIRST) == {}


def test_of_four_sentinels_that_keep_the_default_one_is_raced_against_its_rival_in_turn():
    kept = {"plan": UNTUNED, "speedup": None}
    entries = [entry(requests, ties=(splits(2), splits(1)), **kept) for requests in range(2, 10)]
    entries.append(entry(10, **kept))
    entries.append(entry(11, ties=(splits(1),)))
    assert rivals(entries) == {f"{requests}q1s1k": splits(2) for requests in range(2, 10)}
    rival = Rival(plan=splits(2), speedup=Speedup(median=1.0, low=0.99, high=1.01))
    seen = []
    for number in range(4):
        chosen = rivals_in_turn(entries, target((), seen).history)
        assert len(chosen) == 2
        seen += [reading(number, shape=shape, rival=rival, **kept) for shape in chosen]
    assert {each.shape for each in seen} == set(rivals(entries))
    assert len(rivals_in_turn(entries[:3], target((), seen).history)) == 1
    assert rivals_in_turn(entries[8:], target((), seen).history) == {}
