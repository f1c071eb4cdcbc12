from collections.abc import Callable, Mapping
from typing import Any

import pytest

from fake_device import DEFAULT, FakeBench, splits, workload
from mla_tune.errors import MlaTuneError
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.session import Setup
from mla_tune.shapes import MlaDimensions
from mla_tune.tuning.visits import FEWEST_VISITS, Contender, compared

GATE = 1.02
TUNED = splits(8)


class SeveralBackends(FakeBench):
    """A device on which the latencies are those of the backend that is open.

    Args:
        own: latencies of each backend, by plan.
    """

    def __init__(self, own: Mapping[str, Mapping[Plan, float]], **how: Any) -> None:
        super().__init__({DEFAULT: 1.0}, noise=0.002, **how)
        self.own = own
        self.opened: list[str] = []

    def open(self, setup: Setup) -> None:
        super().open(setup)
        self.latencies_us = self.own[setup.backend]
        self.opened.append(setup.backend)


def contender(name: str, plan: Plan = UNTUNED) -> Contender:
    setup = Setup(
        backend=name,
        model=MlaDimensions(2),
        kv_cache_dtype="auto",
        mode="graph",
        max_model_len=4096,
        max_num_requests=32,
        max_num_query_tokens=32,
    )
    return Contender(setup, ((workload("q1s1k"), UNTUNED), (workload("32q1s1k"), plan)))


def compare(
    bench: FakeBench,
    *contenders: Contender,
    left_s: Callable[[], float] = lambda: 60.0,
    told: Callable[[str], None] = pytest.fail,
) -> Any:
    return compared(bench, contenders, GATE, left_s, told)


def test_a_backend_that_is_faster_with_its_table() -> None:
    bench = SeveralBackends({"A": {DEFAULT: 100.0}, "B": {DEFAULT: 110.0, TUNED: 50.0}})
    (found,) = compare(bench, contender("A"), contender("B", TUNED))
    # The mean of its two batches: one has its default, the other its plan.
    assert found.latencies_us == pytest.approx((100.0, 80.0), rel=0.01)
    assert found.speedup.median == pytest.approx(100 / 80, rel=0.01)
    assert found.speedup.low > GATE
    assert found.visits == FEWEST_VISITS
    assert found.is_final(GATE)
    assert set(bench.checked) == {("q1s1k", DEFAULT), ("32q1s1k", DEFAULT), ("32q1s1k", TUNED)}


@pytest.mark.parametrize("seed", range(3))
def test_what_is_as_fast_is_not_faster(seed: int) -> None:
    bench = SeveralBackends({"A": {DEFAULT: 100.0}, "B": {DEFAULT: 99.0}}, seed=seed)
    (found,) = compare(bench, contender("A"), contender("B"))
    assert found.speedup.low < GATE
    assert found.speedup.low < 1.01 < found.speedup.high


def test_a_clock_that_goes_down_is_in_favour_of_nobody() -> None:
    taken = iter(range(10**6))
    bench = SeveralBackends({"A": {DEFAULT: 100.0}, "B": {DEFAULT: 100.0}})
    bench.slowdown = lambda: 1.0 + next(taken) / 1000
    (found,) = compare(bench, contender("A"), contender("B"))
    assert found.visits % 2 == 0
    assert found.speedup.low < 1.0 < found.speedup.high
    assert found.speedup.median == pytest.approx(1.0, abs=0.003)


def test_what_is_far_behind_is_visited_once() -> None:
    backends = {"A": {DEFAULT: 100.0}, "B": {DEFAULT: 200.0}, "C": {DEFAULT: 50.0}}
    bench = SeveralBackends(backends)
    slow, fast = compare(bench, *map(contender, "ABC"))
    assert bench.opened.count("B") == 1
    assert slow.speedup is None
    assert slow.is_final(GATE)
    assert fast.speedup.low > GATE


def test_one_that_fails_is_left_out() -> None:
    told: list[str] = []
    bench = SeveralBackends({"A": {DEFAULT: 100.0}, "B": {TUNED: 50.0}})
    bench.race_faults = {TUNED: "died"}
    assert compare(bench, contender("A"), contender("B"), told=told.append) == []
    assert told[0].startswith("B is left out: scripted for")
    assert bench.opened.count("A") == 1


def test_the_first_has_to_run() -> None:
    bench = SeveralBackends({"A": {TUNED: 100.0}, "B": {DEFAULT: 50.0}})
    bench.check_faults = {TUNED: "wrong result"}
    with pytest.raises(MlaTuneError):
        compare(bench, contender("A"), contender("B"))


def test_no_round_is_begun_that_would_not_fit() -> None:
    left = iter((60.0, 35.0, 35.0, 10.0, 10.0))  # a round takes 25 s
    bench = SeveralBackends({"A": {DEFAULT: 100.0}, "B": {DEFAULT: 50.0}})
    (found,) = compare(bench, contender("A"), contender("B"), left_s=lambda: next(left))
    assert (found.visits, found.speedup, found.is_final(GATE)) == (2, None, False)
    assert "2 looks: too few" in str(found)
