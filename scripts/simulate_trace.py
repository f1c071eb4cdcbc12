#!/usr/bin/env python3
"""How many decode steps of a trace the plugin answers, and what it gains, by a model of latency.

    python scripts/simulate_trace.py trace.csv \
        --tables build/h100/TRITON_MLA-*.yaml \
        --recordings tests/data/h100/{eager_triton_mla_grid,graph_triton_mla}.jsonl.gz

The trace goes through the simple engine of `mla_tune.traffic.batching`. In eager mode each step
is asked for as the plugin asks, stale readings included; in graph mode it replays the graph of the
next captured size. Outcomes are counted as the recorder of MLA_TUNE_RECORD counts them.

What a step takes is modelled: waves are fitted to a recording of the same mode, and the thread
blocks of the step's real lengths are scheduled one after the other on the slots they leave.
TRITON_MLA only: FLASH_ATTN_MLA schedules its blocks itself.
"""

import argparse
import heapq
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench_waves import cutter, points
from mla_tune.measuring.recording import Recording
from mla_tune.table import Table
from mla_tune.table.waves import TERMS, WaveModel, terms
from mla_tune.traffic.batching import SimulatedEngine, decode_steps
from mla_tune.traffic.step_parts import StepPart, kind_of
from mla_tune.traffic.trace import load_trace
from mla_tune.tuning.wave_fit import fit
from mla_tune.vllm.captures import default_capture_sizes
from mla_tune.vllm.plugin.lookups import Lookups
from mla_tune.vllm.plugin.step_choices import StepChoices

RELEASE, CAPABILITY = "0.33.0", "9.0"
"""For the captured sizes; they are the same from 0.26 on, on Hopper."""

_OF_WAVES = ("wave", "wave_token", "shared_wave", "shared_wave_token")


def default_splits(longest: int) -> int:
    """VLLM's own count outside of graphs: a power of two of parts of 512 tokens or more."""
    parts = max(1, longest // 512)
    return min(1 << (parts - 1).bit_length(), 256)


@dataclass(frozen=True)
class Latency:
    """What a step takes, by a model of waves.

    Attributes:
        model: fitted to uniform batches.
        frozen: the default's splits in graphs; None for those of the longest request.
    """

    model: WaveModel
    frozen: int | None

    @classmethod
    def of(cls, recording: Recording, mode: str) -> "Latency":
        """Fitted to the TRITON_MLA points that were recorded in ``mode``."""
        tracks = [
            track
            for track in recording.tracks
            if (track.setup.backend, track.setup.mode) == ("TRITON_MLA", mode)
        ]
        known = points(tracks)
        model = fit(known, cutter(recording.environment, "TRITON_MLA", tracks[0].setup.model))
        if mode == "graph":
            return cls(model, known[0].default)
        unlike = [point for point in known if point.default != default_splits(point.kv_len)]
        if unlike:
            raise SystemExit(f"the recorded default is another one: {unlike[0]}")
        return cls(model, None)

    def default(self, longest: int) -> int:
        """The splits untuned."""
        return default_splits(longest) if self.frozen is None else self.frozen

    def us(self, kv_lens: Sequence[int], splits: int) -> float:
        """Of a step with these KV lengths."""
        model, batch = self.model, len(kv_lens)
        mean = sum(kv_lens) // batch
        cut = model.cutter.cut(batch, mean, splits)
        counts = terms(cut, batch, mean, model.cutter.sm_count, model.occupancy)
        us = model.microseconds
        rest_us = sum(
            us.get(name, 0.0) * count
            for name, count in zip(TERMS, counts, strict=True)
            if name not in _OF_WAVES
        )
        return rest_us + self._waves_us(kv_lens, splits, cut.rows // batch)

    def _waves_us(self, kv_lens: Sequence[int], splits: int, heads: int) -> float:
        """When the last of the thread blocks ends, each started where one before it has ended."""
        model, us = self.model, self.model.microseconds
        count = len(kv_lens) * splits * heads
        sharing = min(model.occupancy, math.ceil(count / model.cutter.sm_count)) - 1
        block_us = us.get("wave", 0.0) + us.get("shared_wave", 0.0) * sharing
        token_us = us.get("wave_token", 0.0) + us.get("shared_wave_token", 0.0) * sharing
        # The grid's first index is the request.
        blocks = [block_us + token_us * kv_len / splits for kv_len in kv_lens] * (heads * splits)
        ends = blocks[: model.slots]
        heapq.heapify(ends)
        for block in blocks[model.slots :]:
            heapq.heapreplace(ends, ends[0] + block)
        return max(ends)


@dataclass
class Simulated:
    """What came of the steps in one mode.

    Attributes:
        outcomes: as the recorder counts them, and ``plan`` where a hit names one.
        default_us, tuned_us: of the steps that were timed.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    default_us: list[float] = field(default_factory=list)
    tuned_us: list[float] = field(default_factory=list)

    def row(self, what: str) -> str:
        """A row of the table."""
        steps = self.outcomes.total() - self.outcomes["plan"]
        names = ("hit", "plan", "skewed", "miss")
        cells = [what, *(f"{self.outcomes[name] / steps:.0%}" for name in names)]
        slower = [
            tuned / default
            for tuned, default in zip(self.tuned_us, self.default_us, strict=True)
            if tuned > default
        ]
        gain = sum(self.default_us) / sum(self.tuned_us)
        cells += [f"{gain:.3f}×", f"{len(slower) / len(self.tuned_us):.1%}"]
        return f"| {' | '.join(cells)} | {max(slower, default=1.0) - 1:.1%} |"


def step_of(kv_lens: Any) -> Any:
    """What the plugin reads of vLLM's CommonAttentionMetadata."""
    return SimpleNamespace(
        num_reqs=len(kv_lens),
        max_query_len=1,
        num_actual_tokens=len(kv_lens),
        max_seq_len=int(kv_lens.max()),
        seq_lens_cpu_upper_bound=SimpleNamespace(numpy=lambda: kv_lens),
    )


def part_of(kv_lens: Any, rows: int) -> StepPart:
    """The step as the recorder sees it; ``rows`` are those of the graph that it replays."""
    return StepPart(rows, 1, int(kv_lens.sum()), int(kv_lens.max()), len(kv_lens))


def simulated(
    steps: Sequence[Any], lookups: Lookups, latency: Latency, sizes: Sequence[int], timed: int
) -> Simulated:
    """Put all steps through the lookups, and time ``timed`` of them.

    Args:
        steps: the KV lengths of each.
        lookups: with the table of the mode.
        latency: fitted to the mode.
        sizes: captured batch sizes, ascending; empty for eager mode.
        timed: how many steps to time, evenly apart.
    """
    deployment: Any = SimpleNamespace(lookups=lookups, planned={})
    choices, found = StepChoices(deployment), Simulated()
    every = max(1, len(steps) // timed)
    for number, kv_lens in enumerate(steps):
        if sizes:
            rows = next(size for size in sizes if size >= len(kv_lens))
            choice = lookups.captured(rows, 1)
        else:
            rows, choice = len(kv_lens), choices.eager(step_of(kv_lens))
        mode = "graph" if sizes else "eager"
        found.outcomes[kind_of(mode, choice.outcome, part_of(kv_lens, rows)).outcome] += 1
        splits = choice.plan.number("num_kv_splits")
        found.outcomes["plan"] += splits is not None
        if number % every == 0:
            lens = kv_lens.tolist()
            default_us = latency.us(lens, latency.default(max(lens)))
            found.default_us.append(default_us)
            found.tuned_us.append(default_us if splits is None else latency.us(lens, splits))
    return found


def rows(
    trace: Path,
    tables: Sequence[Path],
    recordings: Sequence[Path],
    engine: SimulatedEngine,
    timed: int,
) -> Iterator[str]:
    """The rows of all tables."""
    steps = list(decode_steps(load_trace(trace), engine))
    skewed = np.mean([step.max() * len(step) > 1.5 * step.sum() for step in steps])
    yield f"{trace.name}: {len(steps)} steps, {skewed:.0%} skewed"
    yield "| table | answered | with a plan | skewed | miss | gain | slower steps | by up to |"
    yield "|---|---|---|---|---|---|---|---|"
    loaded = [Recording.load(path) for path in recordings]
    for path in tables:
        table = Table.load(path)
        mode = table.header.engine.mode
        (recording,) = (
            each
            for each in loaded
            if any((t.setup.backend, t.setup.mode) == ("TRITON_MLA", mode) for t in each.tracks)
        )
        sizes: Sequence[int] = ()
        if mode == "graph":
            sizes = default_capture_sizes(RELEASE, CAPABILITY, max_num_seqs=engine.max_num_seqs)
        lookups = Lookups(table, None) if sizes else Lookups(None, table)
        latency = Latency.of(recording, mode)
        what = f"{table.header.device.name}, {mode}"
        yield simulated(steps, lookups, latency, sizes, timed).row(what)


def main() -> None:
    """Parse the arguments and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("trace", type=Path)
    parser.add_argument("--tables", type=Path, nargs="+", required=True)
    parser.add_argument("--recordings", type=Path, nargs="+", required=True)
    parser.add_argument("--step-ms", type=float, default=30.0)
    parser.add_argument("--max-num-seqs", type=int, default=256)
    parser.add_argument("--timed", type=int, default=1000)
    args = parser.parse_args()
    engine = SimulatedEngine(max_num_seqs=args.max_num_seqs, step_ms=args.step_ms)
    for row in rows(args.trace, args.tables, args.recordings, engine, args.timed):
        print(row, flush=True)


if __name__ == "__main__":
    main()
