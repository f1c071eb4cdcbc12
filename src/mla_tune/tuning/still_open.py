"""What a confirmation still has to measure, once some rounds have been seen."""

__all__ = ["open_cases", "open_plans"]

from mla_tune.plan.plan import Plan
from mla_tune.tuning.decide import CLEAR_LOSS, Contest, Standing, is_far_from_loss

FAR_BEHIND = 1.03
"""A plan whose interval is so far below that of a leader which nothing can refute is out. A plan
ties within 1 % (`TIE_BAND`)."""


def open_plans(contest: Contest) -> list[Plan]:
    """The plans that may still win or tie, and what they are compared with, which comes first.

    Where none may, all that have been racing: their verdict needs its rounds.
    """
    leader = next((s for s in contest.racing if all(map(is_far_from_loss, s.cases))), None)
    able = [s for s in contest.racing if not _is_lost(s) and not _is_behind(s, leader)]
    return [contest.default, *(standing.plan for standing in able or contest.racing)]


def _is_lost(standing: Standing) -> bool:
    return len(standing.cases) > 1 and any(case.high < CLEAR_LOSS for case in standing.cases)


def _is_behind(standing: Standing, leader: Standing | None) -> bool:
    return leader is not None and standing.speedup.high * FAR_BEHIND < leader.speedup.low


def open_cases(contest: Contest, plans: list[Plan]) -> tuple[int, ...]:
    """The numbers of the cases to measure on: those with weight, and guards near a loss.

    Args:
        contest: so far.
        plans: which are raced on.
    """
    left = [standing for standing in contest.racing if standing.plan in plans]
    return tuple(
        number
        for number, share in enumerate(contest.shares)
        if share or not all(is_far_from_loss(standing.cases[number]) for standing in left)
    )
