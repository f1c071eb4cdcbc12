"""The process that measures backends beside each other before an engine starts.

Called as ``python -m mla_tune.serving.compare_main FD REQUEST``. What it has measured is lost when
it is ended: it has to end by itself before its time is over.
"""

__all__ = ["answer"]

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mla_tune.errors import InputError, MlaTuneError
from mla_tune.measuring.worker_client import WorkerBench
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.printable import printable
from mla_tune.serving.child import answer_parent
from mla_tune.serving.compare_request import CompareAnswer, CompareRequest, Contending, plan_key
from mla_tune.serving.lines import in_a_line
from mla_tune.shapes import Workload
from mla_tune.shapes.file import checked_shapes
from mla_tune.shapes.mapping import MappingDocument
from mla_tune.tuning.comparison import Comparison
from mla_tune.tuning.device_bench import alone, scratch_worker
from mla_tune.tuning.planner import Planner
from mla_tune.tuning.visits import Contender, compared


def answer(request: str) -> str:
    """Compare as the request says."""
    try:
        found = _compared(CompareRequest.from_json(request))
    except MlaTuneError as error:
        return CompareAnswer(problem=in_a_line(error)).as_json()
    return CompareAnswer(tuple(found)).as_json()


def _compared(request: CompareRequest) -> list[Comparison]:
    with scratch_worker(request.device) as worker, alone(worker, _say, wait=True):
        contenders = list(_contenders(worker, request.contenders))
        return compared(
            worker, contenders, request.gate, lambda: request.ends_s - time.monotonic(), _say
        )


def _contenders(worker: WorkerBench, asked: tuple[Contending, ...]) -> Iterator[Contender]:
    """The first of them, and the others that can run the same batches.

    Raises:
        InputError: the first cannot.
    """
    first = _contender(worker, asked[0])
    yield first
    for each in asked[1:]:
        try:
            found = _contender(worker, each)
        except InputError as error:
            _say(f"{each.backend} is left out: {error.what}")
            continue
        if [workload for workload, _ in found.plans] == [workload for workload, _ in first.plans]:
            yield found
        else:
            _say(f"{each.backend} is left out: it does not take the same batches")


def _contender(worker: WorkerBench, asked: Contending) -> Contender:
    shapes = checked_shapes(MappingDocument.of(asked.shapes))
    where = worker.environment, worker.device, worker.free_bytes()
    planner = Planner(*where, shapes, Path(), lambda _what: None)
    (job,) = planner.jobs([asked.backend])
    workloads = [Workload(workload.listed) for workload in job.workloads]
    mode = job.setup.mode
    return Contender(
        job.setup, tuple((workload, _plan(workload, mode, asked)) for workload in workloads)
    )


def _plan(workload: Workload, mode: str, asked: Contending) -> Plan:
    knobs = asked.plans.get(plan_key(workload.listed[0].shape.groups[0], mode))
    return Plan.from_dict(knobs) if knobs else UNTUNED


def _say(line: str) -> None:
    print(f"mla-tune: {printable(line)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    answer_parent(sys.argv[1:], answer)
