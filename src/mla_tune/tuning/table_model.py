"""The model of a table whose workloads have been looked at."""

__all__ = ["table_model"]

from mla_tune.errors import UnavailableError, WorkloadFailure
from mla_tune.registry import get_backend
from mla_tune.table.between import Between
from mla_tune.tuning.between import between
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.tuner import Tuner


def table_model(job: TableJob, tuner: Tuner) -> Between | None:
    """What answers between the entries of a table that is done, if that can be proven.

    The tuner's session is open for ``job``.
    """
    header = job.header
    cut = get_backend(header.backend).cut
    on_gpu = header.device.compute_capability is not None
    if header.engine.mode != "eager" or cut is None or not on_gpu:
        return None
    try:
        trials = [tuner.trials(workload) for workload in job.workloads]
        return between(trials, header, cut, tuner.settings.min_speedup, tuner.default_at)
    except (WorkloadFailure, UnavailableError):
        return None  # the worker has ended, and what it cost has been said
