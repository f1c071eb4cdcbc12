"""What is wrong with a table that can be read: entries that no run of ours would publish."""

__all__ = ["audited", "twins"]

from collections.abc import Iterator, Sequence
from pathlib import Path

from mla_tune.table import Entry, Speedup, TableFile
from mla_tune.tuning.decide import slows

FAR_FROM_SAMPLES = 1.1
"""How far a printed speed-up may be from the ratio of the printed latencies. The median of ratios
is not the ratio of medians; on a shared CPU they were apart by up to 6 %."""


def audited(file: TableFile) -> Iterator[str]:
    """One line for each entry that contradicts itself, or lost against the default.

    The schema, the bounds of each knob and repeated keys are `TableFile.load`'s to refuse.
    """
    for index, entry in enumerate(file.entries):
        for problem in _problems(entry):
            yield f"{file.document.where(('entries', index))}: {entry.shape}: {problem}"


def _problems(entry: Entry) -> Iterator[str]:
    if not entry.plan:
        return
    speedup = entry.speedup
    if speedup is None or entry.default_us is None:
        yield f"publishes {entry.plan} without a measurement against the default"
        return
    if speedup.low <= 1.0:
        yield f"publishes {entry.plan}, which is not proven to be faster: {speedup}"
    if not _agrees(speedup, entry.latency_us, entry.default_us):
        yield f"speed-up {speedup} is not that of its latencies"
    for case in entry.cases:
        if slows(case.speedup, len(entry.cases)):
            yield f"{entry.plan} is slower than the default at {case.kv_len} tokens: {case.speedup}"
        elif not _agrees(case.speedup, case.latency_us, case.default_us):
            yield f"speed-up {case.speedup} at {case.kv_len} tokens is not that of its latencies"


def _agrees(speedup: Speedup, latency_us: float, default_us: float) -> bool:
    ratio = default_us / latency_us / speedup.median if speedup.median > 0 else 0.0
    is_ordered = speedup.low <= speedup.median <= speedup.high
    return is_ordered and 1 / FAR_FROM_SAMPLES <= ratio <= FAR_FROM_SAMPLES


def twins(tables: Sequence[tuple[Path, TableFile]]) -> Iterator[str]:
    """One line for each table that is true for the same as one before it: an engine takes one."""
    for place, (path, file) in enumerate(tables):
        for earlier, other in tables[:place]:
            if file.header.first_difference(other.header) is None:
                yield f"{path}: true for the same as {earlier}"
                break
