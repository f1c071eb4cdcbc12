"""The entry that a nominee ends in, once other processes have looked at its plan."""

__all__ = ["confirmed_entry", "failed_entry", "is_open", "refusal"]

import statistics
from collections.abc import Sequence

from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.table import Entry, Speedup
from mla_tune.tuning.decide import is_kept, slows
from mla_tune.tuning.look import Comparison, Look
from mla_tune.tuning.process_spread import over_processes
from mla_tune.tuning.speedups import TIE_BAND, is_too_wide

SLOWER = "slower at one KV length"


def confirmed_entry(
    nominee: Entry,
    looks: Sequence[Look],
    spread: float,
    min_speedup: float,
    *,
    is_published: bool = False,
) -> Entry:
    """Ask the gate: the plan over all processes, or the default.

    Args:
        nominee: the entry as the first process has it, with a plan.
        looks: what each process saw, the first one's included.
        spread: of log ratios between processes, see `spread_of`.
        min_speedup: the lower end of the interval over processes has to be above it.
        is_published: whether the table has this plan already, which then `is_kept`.
    """
    together, *cases = _over_all(looks, spread)
    known = {"processes": len(looks), "default_us": together.default_us}
    by_case = [case.speedup for case in cases]
    doubt = _doubt(together.speedup, by_case, min_speedup, is_published=is_published)
    if not doubt:
        results = [
            case.model_copy(update=seen._asdict())
            for case, seen in zip(nominee.cases, cases, strict=True)
        ]
        found = {"latency_us": together.latency_us, "speedup": together.speedup}
        return nominee.model_copy(update=known | found | {"cases": tuple(results)})
    note = _told(nominee.plan, looks, together.speedup, doubt)
    is_near = together.speedup.high * (1 + TIE_BAND) >= 1.0
    ties = (nominee.plan,) if is_near else ()
    return _untuned(nominee, note).model_copy(
        update=known | {"latency_us": together.default_us, "ties": ties}
    )


def refusal(
    plan: Plan,
    looks: Sequence[Look],
    spread: float,
    min_speedup: float,
    *,
    is_published: bool = False,
) -> str:
    """What processes saw of ``plan`` if it gains enough and is slower at one KV length; or nothing.

    Another plan may gain without that. Args: as of `confirmed_entry`.
    """
    speedup, *by_case = (seen.speedup for seen in _over_all(looks, spread))
    doubt = _doubt(speedup, by_case, min_speedup, is_published=is_published)
    return _told(plan, looks, speedup, doubt) if doubt == SLOWER else ""


def failed_entry(nominee: Entry, blamed: Plan, reason: str) -> Entry:
    """The default, since ``blamed``, the plan or the default, failed in another process."""
    note = f"{blamed} failed in another process ({reason})"
    if blamed == nominee.plan:
        return _untuned(nominee, note).model_copy(update={"latency_us": nominee.default_us})
    unproven = {"unproven": nominee.plan, "default_us": None}
    return _untuned(nominee, note).model_copy(update=unproven)


def is_open(looks: Sequence[Look], spread: float, min_speedup: float) -> bool:
    """Whether the gate lies within the interval, so that one process more may tell."""
    speedup = _over_all(looks, spread)[0].speedup
    return speedup.low <= min_speedup < speedup.high


def _over_all(looks: Sequence[Look], spread: float) -> list[Comparison]:
    """All cases together first, then each, over the processes that saw it."""
    by_case = zip(*(look.cases for look in looks), strict=True)
    seen = [[look.together for look in looks], *([c for c in case if c] for case in by_case)]
    return [
        Comparison(
            statistics.fmean(each.latency_us for each in same),
            statistics.fmean(each.default_us for each in same),
            over_processes([each.speedup for each in same], spread),
        )
        for same in seen
    ]


def _doubt(
    speedup: Speedup, by_case: Sequence[Speedup], min_speedup: float, *, is_published: bool
) -> str:
    """Why the plan is not published, or nothing."""
    if any(map(is_too_wide, (speedup, *by_case))):
        return "too noisy to tell"
    is_above = speedup.low > min_speedup
    if not is_above and not (is_published and is_kept(speedup, min_speedup)):
        return f"not above {min_speedup:g}"
    slower = any(slows(case, len(by_case)) for case in by_case)
    return SLOWER if slower else ""


def _untuned(nominee: Entry, note: str) -> Entry:
    notes = ". ".join(filter(None, (note, nominee.note)))
    nothing = {"plan": UNTUNED, "ties": (), "speedup": None, "cases": ()}
    return nominee.model_copy(update=nothing | {"note": notes})


def _told(plan: Plan, looks: Sequence[Look], speedup: Speedup, doubt: str) -> str:
    return f"{plan} {_counted(looks)}: {speedup}, {doubt}"


def _counted(looks: Sequence[Look]) -> str:
    return "in one process" if len(looks) == 1 else f"over {len(looks)} processes"
