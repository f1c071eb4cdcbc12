"""How a history is shown: an entry a line, one entry night by night, JSON."""

__all__ = ["history_json", "show_readings", "show_trends", "told_change"]

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mla_tune.cli.columns import in_columns, width_of
from mla_tune.cli.figures import told_speedup, told_time
from mla_tune.cli.printing import say
from mla_tune.nightly.reading import Reading
from mla_tune.nightly.trend import Change, Trend

TREND_COLUMNS = ("shape", "card", "plan", "nights", "last", "time", "usual", "scatter", "changed")
READING_COLUMNS = ("night", "kind", "plan", "time", "default", "speed-up (95 %)", "vLLM")


def show_trends(console: Console, path: Path, found: Sequence[Trend]) -> None:
    """Print an entry a line, and below what has changed."""
    lines = in_columns(TREND_COLUMNS, map(_trend_cells, found), 3, width_of(console))
    console.out("\n".join([str(path), *lines]), highlight=False)
    for trend in found:
        for change in trend.changes:
            _say_change(console, trend, change)


def show_readings(console: Console, trend: Trend) -> None:
    """Print one entry on one card, night by night."""
    lines = in_columns(READING_COLUMNS, map(_reading_cells, trend.readings), 3, width_of(console))
    title = f"{trend.shape} on card {trend.card}: usual scatter {trend.scatter:.1%}"
    console.out("\n".join([title, *lines]), highlight=False)
    for change in trend.changes:
        _say_change(console, trend, change)


def told_change(change: Change) -> str:
    """A change in words: by how much, since when, what was different."""
    slower = "slower" if change.is_regression else "faster"
    told = (
        f"{_percent(change.factor)} {slower} since {change.first.day} "
        f"(still as before on {change.last_before.day}; scatter {change.scatter:.1%})"
    )
    if change.is_of_the_card:
        told += "; the default changed as much: the card or its clock, not the plan"
    changed = ", ".join(change.differences)
    return f"{told}; {changed or 'no other software that we know of'}"


def history_json(path: Path, found: Sequence[Trend]) -> dict[str, Any]:
    """Everything, for a program."""
    return {"history": str(path), "entries": [_plain(each) for each in found]}


def _say_change(console: Console, trend: Trend, change: Change) -> None:
    is_open = change is trend.regression
    say(console, f"{trend.shape}: {told_change(change)}", style="bold red" if is_open else "")


def _percent(factor: float) -> str:
    return f"{abs(factor - 1):.1%}"


def _trend_cells(trend: Trend) -> tuple[str, ...]:
    last, changes = trend.last, trend.changes
    sign = "" if not changes else "+" if changes[-1].is_regression else "−"
    return (
        trend.shape,
        trend.card,
        str(last.plan) if last.plan else "default",
        str(len(trend.readings)),
        last.day,
        told_time(last.latency_us),
        told_time(trend.usual_us),
        f"{trend.scatter:.1%}",
        f"{sign}{_percent(changes[-1].factor)} {changes[-1].first.day}" if changes else "–",
    )


def _reading_cells(reading: Reading) -> tuple[str, ...]:
    return (
        reading.day,
        reading.kind,
        str(reading.plan) if reading.plan else "default",
        told_time(reading.latency_us),
        told_time(reading.default_us) if reading.default_us else "–",
        told_speedup(reading.speedup),
        reading.software.get("vllm", "–"),
    )


def _plain(trend: Trend) -> dict[str, Any]:
    return {
        "shape": trend.shape,
        "card": trend.card,
        "scatter": trend.scatter,
        "readings": [reading.model_dump(mode="json") for reading in trend.readings],
        "changes": [
            {
                "since": change.first.at.isoformat(),
                "last_before": change.last_before.at.isoformat(),
                "factor": change.factor,
                "default_factor": change.default_factor,
                "differences": change.differences,
            }
            for change in trend.changes
        ],
    }
