#!/usr/bin/env python3
"""Print, as Markdown, what tables say of the backends beside each other: microseconds and gains.

    python3 scripts/compare_backends.py tuned_configs "NVIDIA H200"

A gain over a backend's own default says nothing about which backend to serve with; the latencies of
one shape on all of them do, where one GPU gave them. docs/h200.md and the README hold what this
prints for the shipped tables.
"""

import math
import sys
from collections.abc import Iterator
from pathlib import Path

from mla_tune.table import Entry, TableFile

# vLLM 0.33's order of preference on compute capability 9.0.
BACKENDS = ("FLASH_ATTN_MLA", "FLASHMLA", "TRITON_MLA")
# A small and a large batch, and one between two waves of thread blocks.
REQUESTS = (1, 32, 48, 128)

Tables = dict[tuple[str, int], dict[str, Entry]]


def graph_tables(folder: Path, device_name: str) -> Tables:
    """The entries of every graph table of a GPU with a 16-bit cache, by backend and heads."""
    found: Tables = {}
    for path in sorted(folder.glob("*.yaml")):
        file = TableFile.load(path)
        header = file.header
        if header.device.name != device_name:
            continue
        if header.engine.mode == "graph" and header.kv_cache_dtype == "auto":
            key = header.backend, header.model["num_q_heads"]
            found[key] = {entry.shape: entry for entry in file.entries}
    return found


def rows(tables: Tables) -> Iterator[str]:
    yield "| heads | backend | " + " | ".join(f"batch {n}" for n in REQUESTS) + " | gain |"
    yield "|---|---|" + "---|" * len(REQUESTS) + "---|"
    for heads in sorted({heads for _, heads in tables}):
        for backend in BACKENDS:
            entries = tables.get((backend, heads))
            if entries is not None:
                cells = [cell(entries, requests) for requests in REQUESTS]
                yield f"| {heads} | {backend} | {' | '.join(cells)} | {gain(entries)} |"


def cell(entries: dict[str, Entry], requests: int) -> str:
    """Default and tuned microseconds of a batch of single-token decodes."""
    prefix = f"{requests}q1s" if requests > 1 else "q1s"
    entry = next((e for shape, e in entries.items() if shape.startswith(prefix)), None)
    if entry is None:
        return "–"
    if entry.default_us is None:
        return f"crashes → {entry.latency_us:.0f}"
    return f"{entry.default_us:.0f} → {entry.latency_us:.0f}"


def gain(entries: dict[str, Entry]) -> str:
    """Geometric mean over the entries that have a default to compare with."""
    compared = [e for e in entries.values() if e.default_us is not None]
    ratios = [e.speedup.median if e.plan and e.speedup else 1.0 for e in compared]
    return f"{math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f}×"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(str(__doc__))
    print("\n".join(rows(graph_tables(Path(sys.argv[1]), sys.argv[2]))))
