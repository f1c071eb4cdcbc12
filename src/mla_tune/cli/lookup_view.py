"""How the answer to a lookup is shown: as text and for programs."""

__all__ = ["answer_text", "lookups_json", "show_lookup"]

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mla_tune.catalogue.at_length import AtLength
from mla_tune.cli.figures import told_speedup, told_time
from mla_tune.cli.json_output import plain_entry, plain_plan
from mla_tune.cli.table_view import told_plan, told_served
from mla_tune.printable import printable
from mla_tune.shapes import Workload, format_size
from mla_tune.table import CaseResult, Entry, Lookup

if TYPE_CHECKING:
    from rich.console import Console

    from mla_tune.catalogue.found import FoundTable


def show_lookup(console: "Console", lookup: Lookup) -> None:
    """Print what a lookup found."""
    console.out(answer_text(lookup), highlight=False)


def answer_text(lookup: Lookup) -> str:
    """What a lookup found, in one line."""
    if lookup.predicted_gain is not None:
        plan = str(lookup.plan) if lookup.plan else "default"
        told = f"by the table's model, which predicts {lookup.predicted_gain:.2f}×"
        return printable(f"hit: {lookup.shape}: {plan} ({told})")
    entry = lookup.entry
    if entry is None:
        return printable(f"miss: {lookup.shape}: {lookup.reason}")
    plan = str(lookup.plan) if lookup.plan else told_plan(entry)
    parts = [f"entry {entry.shape}, {_how(lookup, entry)}", *_figures(entry, AtLength.of(lookup))]
    if entry.served:
        parts.append(told_served(entry.served))
    return printable(f"hit: {lookup.shape}: {plan} ({'; '.join(parts)})")


def _how(lookup: Lookup, entry: Entry) -> str:
    """How near the entry is to what was asked for."""
    if not lookup.is_exact:
        return f"nearest, off by a factor {lookup.factor:.2f}"
    asked = AtLength.of(lookup)
    is_listed = lookup.asked in Workload.parse(entry.shape).shapes
    return "exact" if is_listed or (asked and asked.is_exact) else "between its lengths"


def _figures(entry: Entry, asked: AtLength | None) -> list[str]:
    """Of the length that was asked for first, since a mean over others may be far from it."""
    gain = f", speed-up {told_speedup(entry.speedup)}" if entry.speedup else ""
    mean = f"{told_time(entry.latency_us)}{gain}"
    lengths = [format_size(shape.max_kv_len) for shape in Workload.parse(entry.shape).shapes]
    if len(lengths) == 1:
        return [mean]
    over = f"in the mean over {', '.join(lengths)}: {mean}"
    if asked is None:
        return [over]
    told = [_told_case(case) for case in asked.cases]
    return [*told, over] if asked.is_exact else ["not measured at this length", *told, over]


def _told_case(case: CaseResult) -> str:
    where = "with these lengths" if case.shape else f"at {format_size(case.kv_len)}"
    return f"{where}: {told_time(case.latency_us)}, speed-up {told_speedup(case.speedup)}"


def lookups_json(
    lookups: Sequence[tuple["FoundTable", Lookup]], problems: Sequence[str]
) -> dict[str, Any]:
    """What each table answers, for a program."""
    return {
        "asked": lookups[0][1].shape,
        "answers": [_plain(table, lookup) for table, lookup in lookups],
        "problems": list(problems),
    }


def _plain(table: "FoundTable", lookup: Lookup) -> dict[str, Any]:
    header, entry, asked = table.file.header, lookup.entry, AtLength.of(lookup)
    return {
        "path": str(table.path),
        "backend": header.backend,
        "gpu": header.device.name,
        "num_q_heads": header.model["num_q_heads"],
        "kv_cache_dtype": header.kv_cache_dtype,
        "mode": header.engine.mode,
        "hit": lookup.is_hit,
        "plan": plain_plan(lookup.plan),
        "exact": lookup.is_exact,
        "factor": lookup.factor if entry is not None else None,
        "predicted_gain": lookup.predicted_gain,
        "reason": None if lookup.is_hit else lookup.reason,
        "entry": entry and plain_entry(entry),
        "at_length": None
        if asked is None
        else {
            "exact": asked.is_exact,
            "cases": [case.model_dump(mode="json") for case in asked.cases],
        },
    }
