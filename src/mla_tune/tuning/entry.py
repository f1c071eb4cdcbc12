"""The table entry that a contest ends in."""

__all__ = ["outlasts_doubt", "proven_plan", "published_entry"]

import statistics
from collections.abc import Mapping

from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes import Workload
from mla_tune.table import CaseResult, Entry
from mla_tune.tuning.decide import Contest, Standing
from mla_tune.tuning.speedups import expected_us


def proven_plan(previous: Entry | None) -> Plan | None:
    """What an entry of the table publishes, if it was compared with the default."""
    if previous is None or previous.default_us is None:
        return None
    return previous.plan or None


def outlasts_doubt(
    previous: Entry, workload: Workload, contest: Contest, failures: Mapping[Plan, str]
) -> bool:
    """Whether an earlier verdict on ``workload`` stands although ``contest`` ended in none.

    Too few or too noisy samples refute nothing. A plan that failed this time, or was clearly not
    above the gate or slower for some KV length, is refuted all the same. One that was measured to
    shorter KV lengths, or on uniform batches alone, was never proven for the others.
    """
    if (previous.holds_to or 0) < (workload.holds_to or 0):
        return False
    if workload.holds_ragged and not previous.holds_ragged:
        return False
    if previous.served is not None and (
        workload.served is None or previous.served.to < workload.served.to
    ):
        return False
    if previous.unproven is not None or previous.default_us is None or previous.plan in failures:
        return False
    standing = next((s for s in contest.standings if s.plan == previous.plan), None)
    if standing is None:
        return True
    is_slower = standing.slows_a_case and not standing.is_too_wide
    return not standing.clearly_not and not is_slower


def published_entry(
    workload: Workload, contest: Contest, default: Plan, failures: Mapping[Plan, str]
) -> Entry:
    """Write up a contest.

    Where ``default`` failed, the contest was against another plan, which proves nothing to who
    runs the default now: the winner is named as unproven.
    """
    if contest.default != default:
        return _unproven_entry(workload, contest, default, failures)
    verdict = contest.verdict()
    chosen = verdict.plan or default
    standing = next((s for s in contest.standings if s.plan == chosen), None)
    shares = contest.shares
    return Entry(
        shape=str(workload),
        weight=workload.weight,
        plan=verdict.plan,
        unproven=verdict.unproven,
        default_plan=default,
        ties=tuple(plan for plan in verdict.ties if plan != chosen),
        holds_to=workload.holds_to,
        holds_ragged=workload.holds_ragged,
        served=workload.served,
        latency_us=expected_us(contest.samples[chosen], shares),
        default_us=expected_us(contest.samples[default], shares),
        speedup=standing.speedup if standing is not None else None,
        cases=_cases(workload, contest, standing),
        note=_note(failures, default, contest.samples, verdict.doubt),
    )


def _unproven_entry(
    workload: Workload, contest: Contest, default: Plan, failures: Mapping[Plan, str]
) -> Entry:
    verdict = contest.verdict()
    best = verdict.plan or verdict.unproven or contest.default
    return Entry(
        shape=str(workload),
        weight=workload.weight,
        plan=UNTUNED,
        unproven=best,
        default_plan=default,
        holds_to=workload.holds_to,
        holds_ragged=workload.holds_ragged,
        served=workload.served,
        latency_us=expected_us(contest.samples[best], contest.shares),
        note=_note(failures, default, contest.samples),
    )


def _cases(
    workload: Workload, contest: Contest, standing: Standing | None
) -> tuple[CaseResult, ...]:
    """Per case, guards too: latencies and speed-up, for a published plan that serves several."""
    if standing is None or len(workload.cases) == 1:
        return ()
    plan, default = contest.samples[standing.plan], contest.samples[contest.default]
    return tuple(
        CaseResult(
            kv_len=case.shape.max_kv_len,
            shape=str(case.shape) if case.is_ragged else None,
            weight=case.weight,
            latency_us=statistics.median(plan.of_case(number)),
            default_us=statistics.median(default.of_case(number)),
            speedup=speedup,
        )
        for number, (case, speedup) in enumerate(zip(workload.cases, standing.cases, strict=True))
    )


def _note(
    failures: Mapping[Plan, str],
    default: Plan,
    samples: Mapping[Plan, Samples],
    doubt: str = "",
) -> str:
    """What a reader of the entry should know: doubts, failed plans, samples that are not clean."""
    parts = []
    if doubt:
        parts.append(
            f"{doubt}. A run with more --confirm-seconds, or on a quieter machine, goes on"
        )
    if not default:
        parts.append("no knob matters")
    if default in failures:
        reason = failures[default]
        parts.append(
            f"the default ({default}) could not be measured, so nothing is proven: {reason}"
        )
    failed: dict[str, list[Plan]] = {}
    for plan, reason in failures.items():
        if plan != default:
            failed.setdefault(reason, []).append(plan)
    for reason, plans in failed.items():
        parts.append(f"{', '.join(map(str, plans))} failed ({reason})")
    others = sum(samples.values(), Samples(())).others
    if others is not None:
        parts.append(str(others))
    tainted = {s.tainted for s in samples.values() if s.tainted}
    if tainted:
        parts.append(f"no clean samples: {', '.join(sorted(tainted))}")
    return ". ".join(parts)
