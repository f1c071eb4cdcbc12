"""What a night would do, and what it did, on the terminal."""

__all__ = ["exit_code", "show_outcomes", "show_plan"]

from collections.abc import Sequence

from rich.console import Console

from mla_tune.cli.columns import in_columns
from mla_tune.cli.printing import say
from mla_tune.nightly.estimate import look_seconds, tune_seconds
from mla_tune.nightly.night import Night
from mla_tune.nightly.outcome import Outcome, Status
from mla_tune.nightly.sentinels import nights_to_cover

PLAN_COLUMNS = ("table", "what", "entries", "about")
OUTCOME_COLUMNS = ("table", "became", "looked at", "tuned", "took")


def show_plan(console: Console, night: Night) -> None:
    """Print what is due on each table, and about how long it takes."""
    watched = night.watch()
    rows, total_s = [], 0.0
    for target in night.quiet:
        entries = watched.get(target.path, [])
        total_s += look_seconds(len(entries))
        cover = f"sentinels; all in {nights_to_cover(len(target.entries))} nights"
        rows.append((target.path.stem, cover, str(len(entries)), _time(look_seconds(len(entries)))))
    for target in night.due:
        total_s += tune_seconds(target)
        why = "; ".join(night.outcomes[target.path].reasons)
        cells = str(len(target.job.workloads)), _time(tune_seconds(target))
        rows.append((target.path.stem, f"tune: {why}", *cells))
    console.out("\n".join(in_columns(PLAN_COLUMNS, rows, 2)), highlight=False)
    budget = "" if night.budget_s is None else f", of which {_time(night.budget_s)} are allowed"
    say(console, f"{_time(total_s)} in all{budget}; the whole of a table where sentinels drift")


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
    console.out("\n".join(in_columns(OUTCOME_COLUMNS, rows, 2)), highlight=False)
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
