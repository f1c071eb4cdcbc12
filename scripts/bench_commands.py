#!/usr/bin/env python3
"""Print how long the commands take that read tables, as Markdown.

    python3 scripts/bench_commands.py [RUNS]

Each is a process of its own, on made-up tables of 5,000 entries and on the shipped ones; the
figure is the least of RUNS (7). The last column is over the time of a Python that does nothing.
docs/reading-tables.md holds what this printed.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mla_tune.table import Entry, TableFile
from mla_tune.table.text import entry_text, header_text

ROOT = Path(__file__).parents[1]
NUM_ENTRIES = 5_000
BACKENDS = ("FLASH_ATTN_MLA", "TRITON_MLA")
MAIN = (sys.executable, "-m", "mla_tune")


def made_up(folder: Path, num_entries: int) -> list[Path]:
    """Eager tables of two backends with many entries, each like one of the shipped tables'."""
    paths = []
    for backend in BACKENDS:
        name = f"{backend}-NVIDIA_H200-heads_16-kv_auto-eager-vllm_0.26.0.yaml"
        shipped = TableFile.load(ROOT / "tuned_configs" / name)
        entries = map(entry_text, _entries(shipped.entries, num_entries))
        paths.append(folder / name)
        paths[-1].write_text(header_text(shipped.header) + "".join(entries))
    return paths


def _entries(like: Sequence[Entry], num_entries: int) -> list[Entry]:
    return [
        like[number % len(like)].model_copy(
            update={"shape": f"{2 + number // 20}q1s{(1 + number % 20) * 513}"}
        )
        for number in range(num_entries)
    ]


def least_s(command: Sequence[str], runs: int) -> float:
    """Seconds that a command takes, at the best of times."""
    # An installed package has its bytecode beside it.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    times = []
    for _ in range(runs):
        began_s = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)
        times.append(time.perf_counter() - began_s)
    return min(times)


def rows(folder: Path, num_entries: int, runs: int) -> list[str]:
    """A row of Markdown for each command."""
    one, other = map(str, made_up(folder, num_entries))
    many = f"{num_entries} entries"
    commands = {
        "help": ["--help"],
        f"`show`, {many}": ["show", one],
        f"`lookup`, {many}": ["lookup", one, "--batch", "32", "--kv-len", "4k"],
        f"`compare`, two tables of {many}": ["compare", one, other],
        "`show`, a shipped table": ["show", str(next((ROOT / "tuned_configs").glob("*.yaml")))],
        "`compare bundled`": ["compare", "bundled"],
        "`tables`": ["tables"],
    }
    nothing_s = least_s([sys.executable, "-c", ""], runs)
    timed = {told: least_s([*MAIN, *words], runs) for told, words in commands.items()}
    return [
        "| command | seconds | over `python -c ''` |",
        "|---|---|---|",
        *(f"| {told} | {s:.2f} | {s / nothing_s:.0f}× |" for told, s in timed.items()),
    ]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        asked = int(sys.argv[1]) if len(sys.argv) > 1 else 7
        print("\n".join(rows(Path(scratch), NUM_ENTRIES, asked)))
