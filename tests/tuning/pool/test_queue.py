import heapq
import random
import threading
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.measuring.worker_client import Stopped
from mla_tune.tuning.pool.queue import UnitQueue
from mla_tune.tuning.pool.shared_table import Unit

KIND = ("H100",)


class Thing(SimpleNamespace):
    """Told from others by what it is, as tables and devices are."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


def a_table(name="a", kind=KIND):
    return Thing(name=name, kind=kind, cannot_open={})


def unit(table, cost, key=""):
    return Unit(table, Thing(measured_key=key or f"{cost}"), cost)


def device(kind=KIND):
    return Thing(kind=kind)


def test_the_longest_comes_first_and_a_device_stays_with_its_table():
    one, other = a_table("a"), a_table("b")
    queue = UnitQueue([unit(one, 1), unit(other, 9), unit(one, 5), unit(other, 2)])
    gpu = device()
    first = queue.offer(gpu)
    assert (first.table, first.cost) == (other, 9)
    order = [queue.offer(gpu, other), queue.offer(gpu, other), queue.offer(gpu, one)]
    assert [(each.table.name, each.cost) for each in order] == [("b", 2), ("a", 5), ("a", 1)]
    assert queue.offer(gpu) is None


def test_devices_begin_with_tables_of_their_own():
    tables = [a_table("a"), a_table("b")]
    queue = UnitQueue([unit(table, cost) for table in tables for cost in (4, 4.5)])
    assert len({queue.offer(device()).table for _ in range(2)}) == 2


def test_a_device_of_another_kind_gets_nothing():
    queue = UnitQueue([unit(a_table(), 1)])
    assert queue.take(device(("H200",))) is None
    assert queue.offer(device()) is not None


def test_who_finds_nothing_waits_for_what_another_may_give_back():
    queue = UnitQueue([unit(a_table(), 1)])
    sick, well = device(), device()
    taken = queue.take(sick)
    got = []
    waiter = threading.Thread(target=lambda: got.append(queue.take(well)))
    waiter.start()
    queue.lost(sick)
    waiter.join(timeout=30)
    assert got == [taken]
    assert queue.done(taken)
    assert queue.take(sick) is None


def test_who_waits_is_let_go_when_the_run_stops():
    queue = UnitQueue([unit(a_table(), 1)])
    queue.take(device())
    got = []
    waiter = threading.Thread(target=lambda: got.append(queue.take(device())))
    waiter.start()
    queue.stop()
    waiter.join(timeout=30)
    assert got == [None]


def test_the_last_unit_of_a_table_is_told():
    table = a_table()
    queue = UnitQueue([unit(table, 2), unit(table, 1), unit(a_table("b"), 0.1)])
    gpu = device()
    first, second = queue.offer(gpu, table), queue.offer(gpu, table)
    assert not queue.done(first)
    assert queue.done(second)


class Taken:
    """Other runs have some of the units."""

    def __init__(self, *keys):
        self.keys = set(keys)

    def claim(self, key):
        return key not in self.keys

    def release(self, key):
        self.keys.add(key)


def test_what_another_run_has_is_left_to_it():
    table = a_table()
    claims = Taken("a/long")
    queue = UnitQueue([unit(table, 9, "long"), unit(table, 1, "short")], claims)
    assert queue.take(device()).cost == 1
    assert [left.cost for left in queue.waiting] == [9]
    claims.keys.clear()
    assert queue.take(device()).cost == 9


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=30), st.integers(1, 5))
def test_each_unit_is_handed_out_once(costs, num_devices):
    table = a_table()
    queue = UnitQueue([unit(table, cost) for cost in costs])
    devices = [device() for _ in range(num_devices)]
    seen = []
    while (found := queue.offer(devices[len(seen) % num_devices])) is not None:
        seen.append(found)
    assert sorted(each.cost for each in seen) == sorted(costs)
    assert [each.cost for each in seen] == sorted(costs, reverse=True)


# A run in simulated time: a start of a process, the opening of a session, units of 8 to 30 s, of
# which the queue knows no more than a rough estimate, and two later processes that race winners.
START_S, OPEN_S, RACE_S = 12.0, 4.0, 1.2


def wall_time_s(num_devices, dice):
    tables = [a_table(name) for name in ("a", "b")]
    took_s, units = {}, []
    for table in tables:
        for _ in range(40):
            seconds = dice.uniform(8, 30)
            units.append(unit(table, seconds * dice.uniform(0.6, 1.6)))
            took_s[units[-1]] = seconds
    queue = UnitQueue(units)
    devices = [device() for _ in range(num_devices)]
    free = [(START_S, number, None) for number in range(num_devices)]
    done: list[list] = [[] for _ in devices]
    ended = []
    while free:
        now, number, current = heapq.heappop(free)
        if done[number]:
            queue.done(done[number][-1])
        found = queue.offer(devices[number], current)
        if found is None:
            ended.append((now, number))
            continue
        done[number].append(found)
        spent = took_s[found] + (OPEN_S if found.table is not current else 0.0)
        heapq.heappush(free, (now + spent, number, found.table))
    wall = max(now for now, _ in ended)
    for _ in range(2):
        wall += max(
            START_S + OPEN_S * len({u.table for u in own}) + RACE_S * len(own) for own in done
        )
    return wall


@pytest.mark.parametrize(("num_devices", "least"), [(2, 0.9), (4, 0.85), (8, 0.7)])
def test_forty_shapes_of_two_backends_keep_the_devices_busy(num_devices, least):
    for seed in range(20):
        alone = wall_time_s(1, random.Random(seed))
        together = wall_time_s(num_devices, random.Random(seed))
        assert alone / together / num_devices >= least


def test_what_is_no_unit_is_held_by_one_run_and_waited_for_by_the_others(monkeypatch):
    claims = Taken("launches")
    queue = UnitQueue([], claims)
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            claims.keys.clear()

    monkeypatch.setattr("mla_tune.tuning.pool.queue.time.sleep", pause)
    with queue.hold("launches"):
        assert len(pauses) == 3
    assert claims.keys == {"launches"}, "given back, which this stand-in files as taken"
    queue.stop()
    with pytest.raises(Stopped), queue.hold("launches"):
        pass
