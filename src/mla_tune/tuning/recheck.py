"""A second look at a table: every published plan against the default, measured again."""

__all__ = ["Recheck", "measured_setup", "measured_workload", "recheck"]

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mla_tune.errors import InputError, WorkloadFailure
from mla_tune.measuring.bench import Bench
from mla_tune.measuring.stopwatch import Samples
from mla_tune.plan.failure import PlanFailure
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, Case, MlaDimensions, RequestGroup, Workload
from mla_tune.table import Entry, Speedup, TableFile
from mla_tune.table.device_names import device_kind
from mla_tune.tuning.decide import slows
from mla_tune.tuning.look import look_at
from mla_tune.tuning.process_spread import MEASURED_SPREAD, over_processes
from mla_tune.tuning.second_look import remarks, second_look
from mla_tune.tuning.speedups import is_too_wide


@dataclass(frozen=True)
class Recheck:
    """What became of one published entry.

    ``speedup`` is the one seen this time, None where the plan failed; ``problem`` says
    what is wrong with the entry, or is empty; ``doubts`` why this look may say little.
    """

    entry: Entry
    speedup: Speedup | None
    problem: str
    doubts: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether this look was too noisy to tell."""
        return self.speedup is not None and is_too_wide(self.speedup) and not self.problem

    def __str__(self) -> str:
        seen = self.speedup
        found = f"{seen.median:.3f}× ({seen.low:.3f}–{seen.high:.3f})" if seen else "no comparison"
        remarks = "; ".join(filter(None, (self.problem, *self.doubts)))
        return f"{self.entry.shape}: {self.entry.plan}: {found} {remarks}".rstrip()


def recheck(bench: Bench, file: TableFile, device: str, rounds: int) -> Iterator[Recheck]:
    """Measure every entry of ``file`` that publishes a plan, interleaved with the default.

    Raises:
        InputError: the table is for another device.
    """
    header = file.header
    if device_kind(header.device.name) != device_kind(bench.environment.device_name):
        raise InputError(
            f"the table is for {header.device.name}, this is {bench.environment.device_name}"
        )
    published = [entry for entry in file.entries if entry.plan]
    workloads = [measured_workload(entry) for entry in published]
    if not published:
        return
    bench.open(measured_setup(file, workloads, device))
    for entry, workload in zip(published, workloads, strict=True):
        yield _second_look(bench, entry, workload, rounds)


def _second_look(bench: Bench, entry: Entry, workload: Workload, rounds: int) -> Recheck:
    plan = entry.plan
    space = bench.plan_space(workload.shapes)
    try:
        samples = second_look(bench, workload, space.default, plan, rounds)
    except (PlanFailure, WorkloadFailure) as failure:
        return Recheck(entry, None, failure.what)
    look = look_at(*samples, workload.shares())
    looked = [look.together, *filter(None, look.cases)]
    seen, *cases = (over_processes([each.speedup], MEASURED_SPREAD) for each in looked)
    problem = "slower than the default" if seen.high < 1.0 else ""
    slower = [
        str(shape)
        for shape, case in zip(workload.shapes, cases, strict=False)
        if slows(case, len(cases))
    ]
    if slower and not problem:
        problem = f"slower than the default at {', '.join(slower)}"
    return Recheck(entry, seen, problem, tuple(_doubts(seen, *samples)))


def _doubts(speedup: Speedup, default: Samples, plan: Samples) -> Iterator[str]:
    """Why samples may say little."""
    if is_too_wide(speedup):
        yield "too noisy to tell"
    yield from remarks(default, plan)


def measured_workload(entry: Entry) -> Workload:
    """What the entry was measured with, guards and ragged cases as well.

    Raises:
        InputError: its cases are not those of its shape.
    """
    workload = Workload.parse(entry.shape)
    if not entry.cases:
        return workload
    group = workload.cases[0].shape.groups[0]
    found = [
        Case(
            BatchShape.parse(case.shape)
            if case.shape is not None
            else BatchShape.of([RequestGroup(group.query_len, case.kv_len, group.count)]),
            case.weight,
        )
        for case in entry.cases
    ]
    try:
        measured = Workload.of(found)
    except ValueError as error:
        raise InputError(f"entry {entry.shape}: cases: {error}") from None
    if str(measured) != entry.shape:
        raise InputError(f"entry {entry.shape}: its cases are those of {measured}")
    return measured


def measured_setup(file: TableFile, workloads: list[Workload], device: str) -> Setup:
    """What ``file`` was measured in, large enough for ``workloads``."""
    header = file.header
    own: dict[str, Any] = header.own_settings
    shapes: list[BatchShape] = [shape for workload in workloads for shape in workload.shapes]
    return Setup(
        backend=header.backend,
        model=MlaDimensions(**header.model),
        kv_cache_dtype=header.kv_cache_dtype,
        mode=header.engine.mode,
        max_model_len=header.engine.max_model_len,
        max_num_requests=max(shape.num_requests for shape in shapes),
        max_num_query_tokens=max(shape.num_query_tokens for shape in shapes),
        index_topk=header.engine.index_topk or Setup.index_topk,
        device=device,
        **own,
    )
