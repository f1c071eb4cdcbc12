import pytest

from fake_device import DEFAULT, FakeBench, splits, workload
from mla_tune.nightly.reading import Rival
from mla_tune.nightly.sentinel_look import ROUNDS, drift, look_again
from mla_tune.plan.plan import UNTUNED
from mla_tune.session import Setup
from mla_tune.shapes import MlaDimensions
from mla_tune.table import Entry, Speedup
from readings import FIRST, nights, reading

TWICE = Speedup(median=2.0, low=1.99, high=2.01)
PUBLISHED = Entry(shape="8q1s1k", plan=splits(2), latency_us=100.0, default_us=200.0, speedup=TWICE)
DEFAULTED = Entry(shape="8q1s1k", plan=UNTUNED, latency_us=200.0, default_us=200.0)


def look(entry, rival=None, **more):
    latencies = {DEFAULT: 200.0, splits(2): 100.0}
    bench = FakeBench(latencies, noise=0.005, **more)
    bench.open(Setup("TORCH_MLA", MlaDimensions(2)))
    seen = look_again(bench, workload(), entry, [], "0a1b2c3d", FIRST, rival)
    return bench, seen


def test_a_plan_is_checked_and_raced_against_the_default():
    bench, seen = look(PUBLISHED)
    assert bench.checked == [("8q1s1k", splits(2))]
    assert (bench.raced, bench.race_rounds) == ([("8q1s1k", (DEFAULT, splits(2)))], [ROUNDS])
    assert seen.drift == ""
    assert seen.reading.speedup.median == pytest.approx(2.0, rel=0.02)


def test_the_default_is_timed_alone():
    bench, seen = look(DEFAULTED)
    assert bench.raced == [("8q1s1k", (DEFAULT,))]
    assert (seen.reading.speedup, seen.drift) == (None, "")
    assert seen.reading.latency_us == seen.reading.default_us


def test_the_default_is_raced_against_a_rival():
    bench, seen = look(DEFAULTED, splits(2))
    assert bench.checked == [("8q1s1k", splits(2))]
    assert (bench.raced, bench.race_rounds) == ([("8q1s1k", (DEFAULT, splits(2)))], [ROUNDS])
    assert seen.reading.rival.plan == splits(2)
    assert seen.reading.rival.speedup.median == pytest.approx(2.0, rel=0.02)
    assert seen.reading.latency_us == seen.reading.default_us == pytest.approx(200, rel=0.02)
    assert seen.drift.startswith("speed-up of num_kv_splits=2 +")


def test_a_rival_that_fails_leaves_the_default_alone_and_a_default_that_fails_drifts():
    for rival, faults in ((splits(2), {splits(2): "raised"}), (splits(7), {})):  # there is no 7
        bench, seen = look(DEFAULTED, rival, check_faults=faults)
        assert bench.raced == [("8q1s1k", (DEFAULT,))]
        assert (seen.reading.rival, seen.drift) == (None, "")
    _, seen = look(DEFAULTED, splits(2), race_faults={DEFAULT: "died"})
    assert (seen.reading, "scripted" in seen.drift) == (None, True)


def beside(number, gain, plan=2):
    """A reading of the default, beside a plan with such a gain."""
    rival = Rival(
        plan=splits(plan), speedup=Speedup(median=gain, low=gain * 0.99, high=gain * 1.01)
    )
    return reading(number, 200.0, plan=UNTUNED, speedup=None, rival=rival)


@pytest.mark.parametrize(
    ("before", "gain", "found"),
    [
        ((), 1.01, False),
        ((), 1.05, True),
        ((), 0.9, False),  # the default is what the table says
        ((0.9, 0.9), 0.97, False),  # it gained, and is still slower
        ((0.96, 0.96, 0.96), 1.05, True),
        # Since the last tune it has always been so: tuning says that this is nothing to publish.
        ((1.05, 1.05, 1.05), 1.05, False),
    ],
)
def test_a_rival_drifts_where_it_has_become_the_faster_one(before, gain, found):
    earlier = [beside(number, each) for number, each in enumerate(before)]
    earlier.append(beside(len(before), 3.0, plan=9))  # another rival's says nothing
    assert bool(drift(DEFAULTED, beside(9, gain), earlier, on_gpu=True)) == found


def test_a_plan_that_fails_or_is_wrong_drifts():
    for faults in ({"race_faults": {splits(2): "died"}}, {"check_faults": {splits(2): "raised"}}):
        _, seen = look(PUBLISHED, **faults)
        assert seen.reading is None
        assert "scripted" in seen.drift


@pytest.mark.parametrize(
    ("latency_us", "found"),
    [(100.0, False), (101.0, False), (99.0, False), (110.0, True), (90.0, True)],
)
def test_ten_percent_drift_and_one_does_not(latency_us, found):
    for earlier in ([], nights([100.0, 100.3, 99.8])):
        assert bool(drift(PUBLISHED, reading(9, latency_us), earlier, on_gpu=True)) == found


def test_a_slow_card_is_no_drift_of_a_plan():
    assert drift(PUBLISHED, reading(9, 120.0, default_us=240.0), [], on_gpu=True) == ""


def test_a_tune_begins_another_baseline():
    earlier = [*nights([100.0] * 5), reading(6, 110.0, kind="full")]
    entry = PUBLISHED.model_copy(update={"speedup": Speedup(median=1.82, low=1.81, high=1.83)})
    assert drift(entry, reading(9, 110.0), earlier, on_gpu=True) == ""


def test_a_default_is_compared_on_its_own_card_alone():
    known = {"plan": UNTUNED, "speedup": None}
    earlier = [reading(0, 200.0, card="ffffffff", **known)]
    slow = reading(9, 240.0, **known)
    assert drift(DEFAULTED, slow, earlier, on_gpu=True) == ""
    earlier.append(reading(1, 200.0, **known))
    assert drift(DEFAULTED, slow, earlier, on_gpu=True) == "default's latency +20.0%"


def test_a_processor_scatters_more():
    assert drift(PUBLISHED, reading(9, 105.0), [], on_gpu=True)
    assert drift(PUBLISHED, reading(9, 105.0), [], on_gpu=False) == ""
