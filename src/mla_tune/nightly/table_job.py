"""A table's own shapes as a table job of the device at hand."""

__all__ = ["job_of"]

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mla_tune.environment import Environment
from mla_tune.errors import InputError, UnavailableError
from mla_tune.plan.launch import launch_of
from mla_tune.registry import BACKENDS
from mla_tune.shapes import BatchShape, Case, Workload
from mla_tune.shapes.ragged import RaggedMix
from mla_tune.table import Entry, TableFile
from mla_tune.tuning.graph_cases import longest_beside
from mla_tune.tuning.guards import Fits, guarded, with_ragged_guards
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.planner import GUARDS_SHARE
from mla_tune.tuning.ragged import ragged_about, with_ragged
from mla_tune.tuning.recheck import measured_setup, measured_workload


def job_of(
    file: TableFile, environment: Environment, device: str, free_bytes: int, folder: Path
) -> TableJob:
    """The job of tuning the shapes of ``file`` here, for a table in ``folder``.

    Guards and ragged cases are those that each entry was measured with, as far as they fit.

    Raises:
        UnavailableError: the backend does not run here.
        InputError: the table has no entries, or one whose cases are not those of its shape.
    """
    backend = BACKENDS[file.header.backend]
    if reason := backend.unavailable(environment):
        raise UnavailableError(f"{backend.name} {reason}")
    if not file.entries:
        raise InputError("the table has no entries")
    workloads = [_workload(entry, file) for entry in file.entries]
    has_launches = any(launch_of(plan) for entry in file.entries for _, plan in entry.plans())
    setup = replace(measured_setup(file, workloads, device), launches=has_launches)

    def fits(shapes: Sequence[BatchShape]) -> bool:
        return backend.estimate_bytes(setup, shapes) <= GUARDS_SHARE * free_bytes

    kept = [_fitting(workload, fits) for workload in workloads]
    return TableJob.of(environment, setup, kept, folder)


def _workload(entry: Entry, file: TableFile) -> Workload:
    """What an entry was measured with, or would be: one that keeps the default lists no cases."""
    workload = measured_workload(entry)
    if not entry.cases:
        workload = _guarded(_weighted(workload, entry.weight), entry, file)
    if entry.holds_ragged:
        # Tables of before 2026-11-27 have none.
        ragged = ragged_about(workload, RaggedMix(), _longest_of_one(workload, entry, file))
        workload = with_ragged_guards(workload, ragged)
    return replace(workload, served=entry.served)


def _guarded(workload: Workload, entry: Entry, file: TableFile) -> Workload:
    """The listed cases of an entry with the guards and ragged ones that it must have had."""
    if entry.holds_to is None and not entry.holds_ragged:
        return workload
    found = guarded(workload, _holds_to(workload, entry), _all_fit)
    if not entry.holds_ragged:
        return found
    return with_ragged(found, RaggedMix(), _longest_of_one(workload, entry, file), _all_fit)


def _holds_to(workload: Workload, entry: Entry) -> int:
    return entry.holds_to or max(shape.max_kv_len for shape in workload.shapes)


def _longest_of_one(workload: Workload, entry: Entry, file: TableFile) -> int:
    """The longest KV length, in tokens, of one request whose batch is otherwise the shortest."""
    in_all = _holds_to(workload, entry) * workload.listed[0].shape.num_requests
    longest = longest_beside(workload, file.header.engine.max_model_len, [in_all])
    return longest if entry.served is None else min(longest, entry.served.to)


def _weighted(workload: Workload, weight: float) -> Workload:
    """The workload with ``weight`` shared out evenly; a table keeps no more of what was served."""
    share = weight / len(workload.cases)
    return Workload(tuple(Case(case.shape, share) for case in workload.cases))


def _all_fit(_shapes: Sequence[BatchShape]) -> bool:
    return True


def _fitting(workload: Workload, fits: Fits) -> Workload:
    """Leave out the longest guards and ragged cases until the rest can be loaded."""
    cases = list(workload.cases)
    extras = [case for case in cases if case not in workload.listed]
    for extra in sorted(extras, key=lambda case: -case.shape.num_kv_tokens):
        if fits([case.shape for case in cases]):
            break
        cases.remove(extra)
    return replace(workload, cases=tuple(cases))
