"""How a table, an entry and a lookup are shown on the terminal."""

__all__ = ["show_lookup", "show_table", "told_plan"]

from collections.abc import Sequence

from rich.console import Console

from mla_tune.cli.columns import in_columns
from mla_tune.cli.printing import say
from mla_tune.printable import printable
from mla_tune.shapes.served_reach import ServedReach
from mla_tune.table import Entry, Header, Lookup, Speedup

COLUMNS = ("shape", "plan", "µs", "default µs", "speed-up (95 %)", "ties")
NUM_LEFT_ALIGNED = 2


def show_table(console: Console, header: Header, entries: Sequence[Entry]) -> None:
    """Print a table's entries in columns, and their notes below."""
    vllm = header.software.get("vllm")
    title = (
        f"{header.backend}, {header.device.name}, {header.model['num_q_heads']} heads, "
        f"KV {header.kv_cache_dtype}, {header.engine.mode}{f', vLLM {vllm}' if vllm else ''}"
    )
    rows = [_cells(entry) for entry in entries]
    lines = in_columns(COLUMNS, rows, NUM_LEFT_ALIGNED)
    parts = [f"{name} {told}" for name, told in (header.software_digests or {}).items()]
    measured_with = [f"measured with {', '.join(map(printable, parts))}"] if parts else []
    served = [f"{entry.shape}: {_told_served(entry.served)}" for entry in entries if entry.served]
    notes = [f"{entry.shape}: {printable(entry.note)}" for entry in entries if entry.note]
    text = "\n".join([printable(title), *measured_with, *lines, *served, *notes])
    console.out(text, highlight=False)


def _cells(entry: Entry) -> tuple[str, ...]:
    return (
        entry.shape,
        told_plan(entry),
        f"{entry.latency_us:.1f}",
        f"{entry.default_us:.1f}" if entry.default_us else "not measured",
        _interval(entry.speedup),
        str(len(entry.ties)),
    )


def show_lookup(console: Console, lookup: Lookup) -> None:
    """Print what a lookup found."""
    if lookup.predicted_gain is not None:
        plan = str(lookup.plan) if lookup.plan else "default"
        say(
            console,
            f"hit: {lookup.shape}: {plan} (by the table's model, which predicts "
            f"{lookup.predicted_gain:.2f}×)",
        )
        return
    if lookup.entry is None:
        say(console, f"miss: {lookup.shape}: {lookup.reason}")
        return
    plan = str(lookup.plan) if lookup.plan else told_plan(lookup.entry)
    served = f"; {_told_served(lookup.entry.served)}" if lookup.entry.served else ""
    how = "exact" if lookup.is_exact else f"nearest, off by a factor {lookup.factor:.2f}"
    say(
        console,
        f"hit: {lookup.shape}: {plan} (entry {lookup.entry.shape}, {how}; "
        f"{lookup.entry.latency_us:.1f} µs, speed-up {_interval(lookup.entry.speedup)}{served})",
    )


def told_plan(entry: Entry) -> str:
    """The plan of an entry in a word or its knobs."""
    if entry.unproven is not None:
        return f"default (unproven: {entry.unproven})"
    return str(entry.plan) if entry.plan else "default"


def _told_served(reach: ServedReach) -> str:
    return (
        f"guarded by what was served, to {reach.to} tokens; {reach.beyond:.2%} of the recorded "
        "steps had longer requests"
    )


def _interval(speedup: Speedup | None) -> str:
    return "–" if speedup is None else str(speedup)
