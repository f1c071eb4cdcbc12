"""How a list of tables is shown: as text and for programs."""

__all__ = ["listing_json", "listing_text"]

from collections.abc import Sequence
from typing import Any

from mla_tune.catalogue.found import FoundTable
from mla_tune.catalogue.machine import Machine
from mla_tune.catalogue.summary import Summary
from mla_tune.cli.columns import in_columns
from mla_tune.cli.printing import folded
from mla_tune.printable import printable

COLUMNS = (
    *("source", "backend", "GPU", "KV", "mode"),
    *("heads", "vLLM", "entries", "plans", "gain", "used here"),
)


def listing_text(tables: Sequence[FoundTable], machine: Machine, width: int | None) -> str:
    """A line a table, and below why those are not used that are not."""
    reasons: dict[str, int] = {}
    rows = []
    for table in tables:
        told = "; ".join(machine.why_not(table.file))
        number = reasons.setdefault(told, len(reasons) + 1 - ("" in reasons)) if told else 0
        rows.append((*_cells(table), f"no[{number}]" if number else "yes"))
    gpus = ", ".join(machine.gpus) or "no GPU"
    here = f"here: {gpus}, {f'vLLM {machine.vllm}' if machine.vllm else 'no vLLM'}"
    below = [folded(printable(f"[{number}] {told}"), width) for told, number in reasons.items()]
    return "\n".join([printable(here), *in_columns(COLUMNS, rows, 5, width), *below])


def _cells(table: FoundTable) -> tuple[str, ...]:
    header, summary = table.file.header, Summary.of(table.file.entries)
    return (
        table.source,
        header.backend,
        header.device.name,
        header.kv_cache_dtype,
        header.engine.mode,
        str(header.model["num_q_heads"]),
        header.software.get("vllm", "–"),
        str(summary.num_entries),
        str(summary.num_plans),
        "–" if summary.gain is None else f"{summary.gain:.2f}×",
    )


def listing_json(
    tables: Sequence[FoundTable], machine: Machine, problems: Sequence[str]
) -> dict[str, Any]:
    """All of it, for a program."""
    return {
        "gpus": list(machine.gpus),
        "vllm": machine.vllm,
        "tables": [_plain(table, machine.why_not(table.file)) for table in tables],
        "problems": list(problems),
    }


def _plain(table: FoundTable, reasons: Sequence[str]) -> dict[str, Any]:
    header, summary = table.file.header, Summary.of(table.file.entries)
    return {
        "path": str(table.path),
        "source": table.source,
        "backend": header.backend,
        "gpu": header.device.name,
        "model": header.model,
        "kv_cache_dtype": header.kv_cache_dtype,
        "quantization": header.quantization,
        "mode": header.engine.mode,
        "max_model_len": header.engine.max_model_len,
        "vllm": header.software.get("vllm"),
        "num_entries": summary.num_entries,
        "num_plans": summary.num_plans,
        "gain": summary.gain,
        "used_here": not reasons,
        "why_not": list(reasons),
    }
