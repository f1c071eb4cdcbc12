from pathlib import Path

import pytest

from mla_tune.errors import EnvironmentFailure, WorkloadFailure
from mla_tune.measuring.second_try import (
    ATTEMPTS_FROM_OUTSIDE,
    ask_about_plans,
    ask_without_plans,
)
from mla_tune.measuring.worker_process import WorkerDied, WorkerTimeout
from mla_tune.plan.failure import FailureKind, PlanFailure
from mla_tune.plan.plan import Plan

LOG = Path("worker.log")
TWO = Plan(num_kv_splits=2)
HUNG, SEGFAULT, SIGKILL = (
    WorkerTimeout(2.0, TWO),
    WorkerDied("SIGSEGV", TWO),
    WorkerDied("SIGKILL", TWO),
)
HUNG_EARLY, SEGFAULT_EARLY = WorkerTimeout(2.0, None), WorkerDied("SIGSEGV", None)
SIGTERM = WorkerDied("SIGTERM", TWO)


class Asked:
    """A worker that is lost as ``losses`` say, one after another, and then answers."""

    def __init__(self, *losses):
        self._losses = list(losses)
        self.count = 0

    def __call__(self):
        self.count += 1
        if self._losses:
            raise self._losses.pop(0)
        return "answer"


@pytest.mark.parametrize(
    "losses",
    [
        (),
        (HUNG,),
        (SIGKILL,),
        (HUNG_EARLY,),
        (SEGFAULT_EARLY,),
        (SIGTERM,) * (ATTEMPTS_FROM_OUTSIDE - 1),
        (SIGTERM, HUNG, SIGTERM),
    ],
)
def test_a_loss_that_may_be_no_plans_doing_is_followed_by_another_try(losses):
    ask = Asked(*losses)
    assert ask_about_plans(ask, LOG) == "answer"
    assert ask.count == len(losses) + 1


@pytest.mark.parametrize(
    ("losses", "kind"),
    [
        ((SEGFAULT,), FailureKind.DIED),
        ((HUNG, HUNG), FailureKind.TIMED_OUT),
        ((SIGKILL, SIGKILL), FailureKind.DIED),
        ((SEGFAULT_EARLY, HUNG), FailureKind.TIMED_OUT),
        ((SIGTERM, SEGFAULT), FailureKind.DIED),
    ],
)
def test_the_plan_whose_turn_it_was_is_to_blame_for_the_rest(losses, kind):
    ask = Asked(*losses)
    with pytest.raises(PlanFailure) as caught:
        ask_about_plans(ask, LOG)
    assert (caught.value.plan, caught.value.kind) == (TWO, kind)
    assert caught.value.what == losses[-1].what
    assert ask.count == len(losses)


def test_two_workers_lost_before_any_plans_turn_are_a_failure_of_the_workload():
    with pytest.raises(
        WorkloadFailure, match=r"ended twice before any plan ran: .*SIGSEGV"
    ) as caught:
        ask_about_plans(Asked(HUNG_EARLY, SEGFAULT_EARLY), LOG)
    assert caught.value.remedy == "see worker.log"


def test_somebody_who_keeps_ending_workers_ends_the_run():
    with pytest.raises(EnvironmentFailure, match=r"ended by SIGTERM 3 times"):
        ask_about_plans(Asked(*[SIGTERM] * ATTEMPTS_FROM_OUTSIDE), LOG)


def test_a_failure_that_left_the_worker_alive_is_not_tried_again():
    ask = Asked(PlanFailure("wrong", plan=TWO, kind=FailureKind.WRONG_RESULT))
    with pytest.raises(PlanFailure, match="wrong"):
        ask_about_plans(ask, LOG)
    assert ask.count == 1


def test_what_blames_no_plan_is_asked_twice_and_fails_the_workload():
    assert ask_without_plans(Asked(SEGFAULT_EARLY), "open", LOG) == "answer"
    with pytest.raises(WorkloadFailure, match=r"ended twice when asked to open: .*SIGSEGV"):
        ask_without_plans(Asked(HUNG_EARLY, SEGFAULT_EARLY), "open", LOG)
    refused = PlanFailure("no such knob", plan=TWO)
    with pytest.raises(WorkloadFailure, match="cannot load: no such knob"):
        ask_without_plans(Asked(refused), "load", LOG)
