"""The table jobs of a run that plays a recording back."""

__all__ = ["recorded_jobs"]

from pathlib import Path

from pydantic import ValidationError

from mla_tune.errors import InputError
from mla_tune.measuring.recording import Recording
from mla_tune.session import Setup
from mla_tune.shapes import Workload
from mla_tune.tuning.job import TableJob


def recorded_jobs(recording: Recording, out: Path) -> list[TableJob]:
    """The table jobs that a recording can answer for.

    Raises:
        InputError: it is of something that no table can be for.
    """
    workloads: dict[Setup, list[Workload]] = {}
    for track in recording.tracks:
        workloads.setdefault(track.setup, []).append(track.workload)
    jobs = []
    for setup, recorded in workloads.items():
        try:
            jobs.append(TableJob.of(recording.environment, setup, recorded, out))
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            key = ".".join(map(str, detail["loc"]))
            problem = detail["msg"].removeprefix("Value error, ")
            raise InputError(f"recording {recording.path}: {key}: {problem}") from None
    _refuse_outside(recording, jobs)
    return jobs


def _refuse_outside(recording: Recording, jobs: list[TableJob]) -> None:
    """Refuse plans that no table may hold, before one of them wins."""
    headers = {job.setup: job.header for job in jobs}
    for track in recording.tracks:
        for plan in track.plans:
            for knob, valid in headers[track.setup].outside(plan):
                raise InputError(
                    f"recording {recording.path}: {track.workload}: {knob} is "
                    f"{plan[knob]!r}, which {track.setup.backend} has not",
                    valid=valid,
                )
