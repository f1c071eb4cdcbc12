"""When a question is asked again of a new worker, and whom to blame when it is lost too."""

__all__ = ["ATTEMPTS_FROM_OUTSIDE", "ask_about_plans", "ask_without_plans"]

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mla_tune.errors import DeviceLost, WorkloadFailure
from mla_tune.measuring.worker_process import WorkerDied, WorkerLost, WorkerTimeout
from mla_tune.plan.failure import PlanFailure

# Sent by a person, a terminal that closes or a batch system; no plan ends its process with them.
FROM_OUTSIDE = {"SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"}

ATTEMPTS_FROM_OUTSIDE = 3


def ask_about_plans(ask: Callable[[], Any], log: Path) -> Any:
    """Ask about plans, again where losing the first worker may be no plan's doing.

    SIGKILL is an operator's or the kernel's doing, a time-out may be the machine's: the plan whose
    turn it was is to blame only when it happens twice. Nor is a plan to blame for a worker that
    ended or hung before any plan's turn came.

    Args:
        ask: asks the question of a worker that runs, starting one where none does.
        log: the workers' log, to be named.

    Raises:
        PlanFailure: the plan to blame has failed.
        WorkloadFailure: two workers ended before any plan's turn.
        DeviceLost: somebody keeps ending the workers.
    """
    is_second, from_outside = False, 0
    while True:
        try:
            return ask()
        except WorkerLost as lost:
            if isinstance(lost, WorkerDied) and lost.cause in FROM_OUTSIDE:
                from_outside += 1
                if from_outside == ATTEMPTS_FROM_OUTSIDE:
                    raise _ended_from_outside(lost.cause) from None
                continue
            if is_second or not (lost.plan is None or _may_be_the_machines_doing(lost)):
                raise _blamed(lost, log) from None
            is_second = True


def ask_without_plans(ask: Callable[[], Any], name: str, log: Path) -> Any:
    """Ask for something that blames no plan, once more in a new worker if the first is lost.

    Args:
        ask: as of `ask_about_plans`.
        name: what is asked for, as a verb.
        log: the workers' log, to be named.

    Raises:
        WorkloadFailure: refused, or two workers were lost over it.
    """
    is_second = False
    while True:
        try:
            return ask()
        except PlanFailure as failure:
            raise WorkloadFailure(f"cannot {name}: {failure.what}") from None
        except WorkerLost as lost:
            if is_second:
                raise WorkloadFailure(
                    f"the worker ended twice when asked to {name}: {lost.what}",
                    remedy=f"see {log}",
                ) from None
            is_second = True


def _may_be_the_machines_doing(lost: WorkerLost) -> bool:
    return isinstance(lost, WorkerTimeout) or (
        isinstance(lost, WorkerDied) and lost.cause == "SIGKILL"
    )


def _blamed(lost: WorkerLost, log: Path) -> PlanFailure | WorkloadFailure:
    if lost.plan is not None:
        return PlanFailure(lost.what, plan=lost.plan, kind=lost.kind)
    what = f"the worker ended twice before any plan ran: {lost.what}"
    return WorkloadFailure(what, remedy=f"see {log}")


def _ended_from_outside(cause: str) -> DeviceLost:
    return DeviceLost(
        f"the worker was ended by {cause} {ATTEMPTS_FROM_OUTSIDE} times",
        remedy="finished trials are kept; run the same command again",
    )
