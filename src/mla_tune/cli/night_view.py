"""What a night would do, and what it did, on the terminal."""

__all__ = ["exit_code", "outcomes_json", "plan_json", "show_outcomes", "show_plan"]

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console

from mla_tune.cli.columns import in_columns, width_of
from mla_tune.cli.printing import say
from mla_tune.nightly.estimate import handed_out
from mla_tune.nightly.night import Night
from mla_tune.nightly.outcome import Outcome, Status
from mla_tune.nightly.sentinels import nights_to_cover
from mla_tune.nightly.site import Site
from mla_tune.nightly.table_night import TableNight
from mla_tune.tuning.pool.member import Kind, kind_of

PLAN_COLUMNS = ("table", "what", "entries", "about", "on")
OUTCOME_COLUMNS = ("table", "became", "looked at", "tuned", "took")


def show_plan(console: Console, night: Night) -> None:
    """Print what is due on each table, on which card and about how long."""
    rows = [(*_told(night, table), card) for table, card in _places(night)]
    console.out("\n".join(in_columns(PLAN_COLUMNS, rows, 2, width_of(console))), highlight=False)
    total_s = sum(map(night.estimate, night.tables))
    budget = "" if night.budget_s is None else f", of which {_time(night.budget_s)} are allowed"
    say(console, f"{_time(total_s)} in all{budget}; the whole of a table where sentinels drift")
    for sites, tables in _by_kind(night):
        if len(sites) > 1:
            seconds = [night.estimate(table) for table in tables]
            counts = range(1, len(sites) + 1)
            times = ", ".join(f"{_time(handed_out(seconds, n)[1])} on {n}" for n in counts)
            name = sites[0].bench.environment.device_name
            say(console, f"{name}, by the number of cards: {times}")


def _by_kind(night: Night) -> Iterator[tuple[list[Site], list[TableNight]]]:
    """The cards of each kind, and its tables as they are handed out."""
    kinds: dict[Kind, list[Site]] = {}
    for site in night.sites:
        kinds.setdefault(kind_of(site.bench.environment), []).append(site)
    for kind, sites in kinds.items():
        yield sites, [table for table in night.in_order if table.target.kind == kind]


def _places(night: Night) -> Iterator[tuple[TableNight, str]]:
    """Each table, and the card that takes it if all take as long as they are thought to."""
    for sites, tables in _by_kind(night):
        owners, _ = handed_out([night.estimate(table) for table in tables], len(sites))
        yield from ((table, sites[card].name) for table, card in zip(tables, owners, strict=True))


def _told(night: Night, table: TableNight) -> tuple[str, ...]:
    target, about = table.target, _time(night.estimate(table))
    if table.is_due:
        what = f"tune: {'; '.join(table.outcome.reasons)}"
        return target.path.stem, what, str(len(target.job.workloads)), about
    cover = f"sentinels; all in {nights_to_cover(len(target.entries))} nights"
    return target.path.stem, cover, str(len(table.left)), about


def plan_json(night: Night) -> dict[str, Any]:
    """What is due on each table, for a program."""
    return {
        "tables": [
            {
                "table": str(table.target.path),
                "due": bool(table.is_due),
                "reasons": list(table.outcome.reasons),
                "num_entries": len(table.target.job.workloads if table.is_due else table.left),
                "seconds": night.estimate(table),
                "card": card,
            }
            for table, card in _places(night)
        ],
        "seconds": sum(map(night.estimate, night.tables)),
        "budget_seconds": night.budget_s,
    }


def outcomes_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What became of each table, for a program."""
    return {
        "tables": [
            {
                "table": str(outcome.path),
                "status": str(outcome.status),
                "num_looked": outcome.num_looked,
                "num_tuned": outcome.num_tuned,
                "seconds": outcome.seconds,
                "reasons": list(outcome.reasons),
                "notes": list(outcome.notes),
            }
            for outcome in outcomes
        ]
    }


def show_outcomes(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Print what became of each table, why it was tuned, and what went wrong."""
    rows = [
        (
            outcome.path.stem,
            str(outcome.status),
            str(outcome.num_looked),
            str(outcome.num_tuned),
            _time(outcome.seconds),
        )
        for outcome in outcomes
    ]
    console.out("\n".join(in_columns(OUTCOME_COLUMNS, rows, 2, width_of(console))), highlight=False)
    for outcome in outcomes:
        for reason in outcome.reasons:
            say(console, f"{outcome.path.stem}: due: {reason}")
        for note in outcome.notes:
            say(console, f"{outcome.path.stem}: {note}", style="bold red")


def exit_code(outcomes: Sequence[Outcome], changed: int) -> int:
    """1 where a table failed, ``changed`` where one is another, else 0."""
    found = {outcome.status for outcome in outcomes}
    if Status.FAILED in found:
        return 1
    return changed if found & {Status.CHANGED, Status.NEW} else 0


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
