"""How often what a table is for was served: the most served is tuned first."""

__all__ = ["Served"]

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mla_tune.shapes import Workload
from mla_tune.traffic.histogram import StepKind
from mla_tune.traffic.merged import MergedTraffic
from mla_tune.tuning.job import TableJob

NEAR = 1.5
"""How far off KV lengths may be for a step to count for an eager entry."""


@dataclass(frozen=True)
class Served:
    """What engines have recorded (`MLA_TUNE_RECORD`); without any, weights of the tables alone."""

    traffic: tuple[MergedTraffic, ...] = ()

    @classmethod
    def load(cls, records: Iterable[Path]) -> "Served":
        """Read the records of several engines. Raises InputError as `MergedTraffic.load`."""
        return cls(tuple(map(MergedTraffic.load, records)))

    def steps(self, job: TableJob) -> int:
        """Steps that a table of ``job`` is for."""
        return sum(self._of_workload(job, workload) for workload in job.workloads)

    def first(self, job: TableJob) -> tuple[Workload, ...]:
        """The workloads of ``job``, the most served first; then by the table's own weights."""
        return tuple(
            sorted(job.workloads, key=lambda each: (-self._of_workload(job, each), -each.weight))
        )

    def _of_workload(self, job: TableJob, workload: Workload) -> int:
        header = job.header
        wanted = (header.backend, dict(header.model), header.kv_cache_dtype)
        return sum(
            count
            for traffic in self.traffic
            if _of_engine(traffic.engine) == wanted
            for kind, count in traffic.steps.items()
            if kind.mode == header.engine.mode and _speaks_for(workload, kind)
        )


def _of_engine(engine: dict[str, Any]) -> tuple[Any, dict[str, int], Any]:
    return engine["backend"], dict(engine["model"]), engine["kv_cache_dtype"]


def _speaks_for(workload: Workload, kind: StepKind) -> bool:
    """Whether an entry is of a step's batch; a graph's is of all KV lengths."""
    shape = workload.listed[0].shape
    if not shape.is_uniform or (shape.num_requests, shape.max_query_len) != (
        *(kind.batch, kind.query_len),
    ):
        return False
    return kind.mode == "graph" or _is_near(workload, kind.longest_kv_len)


def _is_near(workload: Workload, kv_len: int) -> bool:
    lengths: Sequence[int] = [case.shape.max_kv_len for case in workload.listed]
    return any(length <= kv_len * NEAR and kv_len <= length * NEAR for length in lengths)
