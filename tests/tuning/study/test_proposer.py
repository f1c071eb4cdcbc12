import itertools
import math
import warnings

import pytest

from mla_tune.plan.plan import Plan
from mla_tune.tuning.study.outcome import Outcome, trial_of
from mla_tune.tuning.study.parameters import Parameters
from mla_tune.tuning.study.policy import Policy
from mla_tune.tuning.study.proposer import SAMPLERS, Proposer

# No product: large tiles do not fit together.
PLANS = [
    Plan(num_kv_splits=splits, block_n=block_n, block_h=block_h)
    for splits, block_n, block_h in itertools.product(
        (1, 2, 4, 8, 16, 32), (16, 32, 64, 128), (16, 32, 64)
    )
    if block_n * block_h <= 4096
]
PARAMETERS = Parameters(PLANS)


def latency_us(plan, best=(8, 64, 32)):
    """One valley in the logarithms."""
    values = (plan["num_kv_splits"], plan["block_n"], plan["block_h"])
    apart = [math.log2(value / where) for value, where in zip(values, best, strict=True)]
    return 100.0 + 10.0 * sum(step**2 for step in apart)


def proposed(name, number, seed=0, first=(), failing=()):
    proposer = Proposer(Policy(name, seed=seed), PARAMETERS, first)
    found = []
    for _ in range(number):
        plan = proposer.propose([plan for plan in PLANS if plan not in found])
        found.append(plan)
        outcome = Outcome(plan, None if plan in failing else latency_us(plan), "")
        proposer.learn(trial_of(outcome, PARAMETERS, None))
    return found


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_plan_is_proposed_twice_and_every_one_in_the_end(name):
    number = 12 if name == "gp" else len(PLANS)  # beyond ten it is slow
    found = proposed(name, number)
    assert len(set(found)) == number


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_was_good_before_comes_first(name):
    first = [PLANS[7], PLANS[3]]
    assert proposed(name, 3, first=first)[:2] == first


def test_a_sampler_that_learns_finds_the_valley():
    assert min(map(latency_us, proposed("gp", 16))) < min(map(latency_us, proposed("random", 16)))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_failing_corner_stops_no_sampler(name):
    failing = [plan for plan in PLANS if plan["block_n"] == 128]
    assert len(set(proposed(name, 12, failing=failing))) == 12


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_the_same_seed_proposes_the_same(name):
    assert proposed(name, 14, seed=3) == proposed(name, 14, seed=3)


def test_a_trial_that_lacks_a_knob_is_passed_over():
    plans = [Plan(num_kv_splits=4), *PLANS]
    parameters = Parameters(plans)
    proposer = Proposer(Policy("gp"), parameters, ())
    for plan in plans[:14]:
        proposer.learn(trial_of(Outcome(plan, 1.0), parameters, None))
    assert proposer.propose(plans[14:]) in plans


def test_nobody_is_warned_of_what_is_experimental():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in SAMPLERS:
            proposed(name, 12)
