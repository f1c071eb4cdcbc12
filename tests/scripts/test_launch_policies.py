from dataclasses import replace

import pytest

from launch_policies import TablePolicy, compiled_as
from made_up_launches import made_up
from mla_tune.plan.launch import launch_of
from mla_tune.plan.plan import Plan
from mla_tune.tuning.study import Policy


@pytest.fixture(scope="module")
def recording():
    """Two workloads of one table, with a few launches and splits."""
    whole, tracks = made_up(rounds=8, heads=(16,), batches=(8, 32)), []
    for track in whole.tracks:
        plans = tuple(plan for plan in track.plans if plan["num_kv_splits"] in {256, 2, 8})[:24]
        rounds = {plan: track.rounds[plan] for plan in plans}
        tracks.append(replace(track, plans=plans, rounds=rounds))
    return replace(whole, tracks=tuple(tracks))


def test_all_plans_cost_all_kernels(recording):
    spent = TablePolicy(policy=Policy()).run(recording, recording.tracks, 0)
    assert spent.compiled == 24
    assert len(spent.chosen) == 2
    assert spent.measured_s > 0


def test_with_vllms_own_launch_no_other_is_compiled(recording):
    spent = TablePolicy("none", Policy()).run(recording, recording.tracks, 0)
    assert spent.compiled == 3
    assert not any(map(launch_of, spent.chosen))


def test_two_steps_compile_less_than_all(recording):
    spent = TablePolicy("few").run(recording, recording.tracks, 0)
    assert 3 < spent.compiled < 24


def test_a_sampler_keeps_its_budget_a_workload(recording):
    spent = TablePolicy(policy=Policy("tpe", budget=6), is_warm=False).run(
        recording, recording.tracks, 0
    )
    assert 6 <= spent.compiled <= 12


def test_kernels_are_launches_and_split_counts():
    plan = Plan(num_kv_splits=2, block_n=64, reorder_batch_threshold=4)
    assert compiled_as(plan) == Plan(num_kv_splits=2, block_n=64)
