import pytest
from optuna.trial import TrialState

from fake_device import DEFAULT, splits
from mla_tune.plan.kernel_resources import KernelResources
from mla_tune.tuning.study.outcome import SLOWED, Outcome, outcome_of, slowest_case, trial_of
from mla_tune.tuning.study.parameters import Parameters

PARAMETERS = Parameters([DEFAULT, splits(1), splits(8)])
ROUNDS = ((10.0, 40.0), (11.0, 41.0), (12.0, 42.0))


def test_a_plan_that_was_screened_out_is_complete_and_says_why():
    trial = trial_of(Outcome(splits(8), 12.5, "screened out"), PARAMETERS, None)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 12.5)
    assert trial.params == {"num_kv_splits": 8}
    assert trial.user_attrs["why"] == "screened out"
    assert trial.user_attrs["plan"] == "num_kv_splits=8"


def test_a_plan_without_a_latency_is_pruned_and_says_why():
    trial = trial_of(Outcome(splits(8), None, "died: SIGSEGV"), PARAMETERS, None)
    assert (trial.state, trial.value) == (TrialState.PRUNED, None)
    assert trial.user_attrs["why"] == "died: SIGSEGV"


def test_a_plan_that_ran_through_gives_no_reason():
    assert "why" not in trial_of(Outcome(DEFAULT, 1.0), PARAMETERS, None).user_attrs


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(DEFAULT, 1.5, "", ((1.25, 2.5), (1.5, 2.75))),
        Outcome(splits(1), 3.5, "screened out", ((1.5,),)),
        Outcome(splits(8), None, "quarantined: raised: boom"),
        Outcome(splits(8), 1.5, "", ((1.5,),), KernelResources(168, 0, 40_960)),
    ],
)
def test_a_trial_gives_back_its_outcome(outcome):
    assert outcome_of(trial_of(outcome, PARAMETERS, None)) == outcome


def test_what_the_kernel_takes_stands_beside_the_knobs():
    outcome = Outcome(splits(8), 1.5, "", ((1.5,),), KernelResources(255, 12, 102_400))
    told = trial_of(outcome, PARAMETERS, None).user_attrs
    assert (told["registers"], told["spills"], told["shared_bytes"]) == (255, 12, 102_400)
    assert "registers" not in trial_of(Outcome(DEFAULT, 1.0), PARAMETERS, None).user_attrs


def test_a_plan_that_slows_a_length_violates_a_constraint():
    default = Outcome(DEFAULT, 1.0, "", ROUNDS)
    slower = Outcome(splits(1), 1.0, "", ((5.0, 41.6), (5.0, 42.0), (5.0, 43.0)))
    within = Outcome(splits(8), 1.0, "", ((5.0, 41.2), (5.0, 42.0), (5.0, 43.0)))
    assert slowest_case(slower.rounds, ROUNDS) == pytest.approx(41.6 / 41)
    found = [trial_of(o, PARAMETERS, default).constraints for o in (default, slower, within)]
    assert [constraints[SLOWED] > 0 for constraints in found] == [False, True, False]


def test_of_one_length_there_is_no_constraint():
    one = Outcome(DEFAULT, 1.0, "", ((1.0,), (2.0,)))
    assert trial_of(one, PARAMETERS, one).constraints == {}
