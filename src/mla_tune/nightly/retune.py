"""`mla-tune retune`: a night on a device or on a recording, alone in its folder."""

__all__ = ["NightOptions", "night_in"]

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mla_tune.environment import Environment
from mla_tune.errors import InputError
from mla_tune.files.own_file import open_own
from mla_tune.measuring.recording import Recording
from mla_tune.nightly.night import Night
from mla_tune.nightly.served import Served
from mla_tune.nightly.site import DeviceSite, RecordedSite, Site
from mla_tune.nightly.target import targets_in
from mla_tune.tuning.device_bench import alone, tell_of_gpu, worker_for
from mla_tune.tuning.reporters import Reporter
from mla_tune.tuning.run_folders import check_output, check_study_folder
from mla_tune.tuning.run_options import Bounds, RunOptions
from mla_tune.tuning.run_settings import settings_for

MINUTES = Bounds(0.1, 7 * 24 * 60)


@dataclass(frozen=True)
class NightOptions:
    """What a night is asked beside the options of a run.

    Attributes:
        folder: of the tables.
        served: records of what engines have served.
        budget_minutes: of the device, after which no other batch shape is begun.

    Raises:
        InputError: a number out of its bounds.
    """

    folder: Path
    served: tuple[Path, ...] = ()
    budget_minutes: float | None = None

    def __post_init__(self) -> None:
        if self.budget_minutes is not None:
            MINUTES.check("budget_gpu_minutes", self.budget_minutes)


@contextmanager
def night_in(asked: NightOptions, options: RunOptions, reporter: Reporter) -> Iterator[Night]:
    """The night that is due in a folder, which no other of this device and release is in meanwhile.

    Raises:
        InputError: anything that can be known to be wrong before measuring.
        EnvironmentFailure: no worker starts.
    """
    served = Served.load(asked.served)
    if not asked.folder.is_dir():
        raise InputError(f"{asked.folder} is no folder", valid="a folder of tables (*.yaml)")
    check_output(asked.folder)
    check_study_folder(options.study_folder)
    with _site(options, reporter) as site:
        environment = site.bench.environment
        with _alone_in(asked.folder, environment):
            yield Night(
                site,
                *targets_in(asked.folder, site, reporter.skipped),
                options.study_folder,
                settings_for(options, environment),
                reporter,
                served,
                None if asked.budget_minutes is None else asked.budget_minutes * 60,
            )


@contextmanager
def _site(options: RunOptions, reporter: Reporter) -> Iterator[Site]:
    if options.recording is not None:
        yield RecordedSite(Recording.load(options.recording))
        return
    with worker_for(options) as worker, alone(worker, reporter.skipped, wait=options.wait):
        os.close(open_own(worker.log, os.O_WRONLY | os.O_TRUNC))
        tell_of_gpu(worker.environment, reporter.skipped)
        yield DeviceSite(worker)


@contextmanager
def _alone_in(folder: Path, environment: Environment) -> Iterator[None]:
    """Two nights would tune the same tables; those of another device or release do not."""
    named = f"{environment.device_name}-{environment.software.get('vllm', 'none')}"
    path = folder / f".retune-{re.sub(r'[^A-Za-z0-9._-]+', '_', named)}.lock"
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise InputError(
            f"another night is at work in {folder} for {environment.device_name}",
            remedy=f"wait for it to end; {path.name} is its lock",
        ) from None
