"""`mla-tune retune`: a night on devices or on a recording, alone in its folder."""

__all__ = ["NightOptions", "night_in"]

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mla_tune.environment import Environment
from mla_tune.errors import InputError
from mla_tune.measuring.recording import Recording
from mla_tune.nightly.night import Night
from mla_tune.nightly.served import Served
from mla_tune.nightly.site import DeviceSite, RecordedSite, Site
from mla_tune.nightly.target import targets_in
from mla_tune.tuning.pool.kinds import tell_of_gpus
from mla_tune.tuning.pool.local import all_alone, asked_devices, empty_logs, local_members
from mla_tune.tuning.pool.member import Member
from mla_tune.tuning.pool.ray_members import ray_members
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
        budget_minutes: of all devices together, after which no other batch shape is begun.

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
    with _sites(options, reporter.skipped) as sites, _alone_in(asked.folder, sites):
        yield Night(
            sites,
            *targets_in(asked.folder, sites, reporter.skipped),
            options.study_folder,
            settings_for(options, sites[0].bench.environment),
            reporter,
            served,
            None if asked.budget_minutes is None else asked.budget_minutes * 60,
        )


@contextmanager
def _sites(options: RunOptions, notice: Callable[[str], None]) -> Iterator[Sequence[Site]]:
    """Where the night measures; other runs do not meanwhile."""
    if options.recording is not None:
        yield [RecordedSite(Recording.load(options.recording))]
        return
    with _members(options, notice) as members:
        tell_of_gpus(members, notice)
        yield list(DeviceSite.of(members))


@contextmanager
def _members(options: RunOptions, notice: Callable[[str], None]) -> Iterator[Sequence[Member]]:
    if options.ray is not None:
        with ray_members(options, notice) as members:
            yield members
        return
    with (
        local_members(asked_devices(options), options) as members,
        all_alone(members, notice, wait=options.wait),
    ):
        empty_logs(members)
        yield members


@contextmanager
def _alone_in(folder: Path, sites: Sequence[Site]) -> Iterator[None]:
    """Two nights would tune the same tables; those of another device or release do not."""
    environments = [site.bench.environment for site in sites]
    kinds = {_named(found): found.device_name for found in environments}
    with ExitStack() as stack:
        for name, device in sorted(kinds.items()):
            path = folder / f".retune-{name}.lock"
            try:
                stack.enter_context(FileLock(path, timeout=0))
            except Timeout:
                raise InputError(
                    f"another night is at work in {folder} for {device}",
                    remedy=f"wait for it to end; {path.name} is its lock",
                ) from None
        yield


def _named(environment: Environment) -> str:
    """The kind of device and the release, as a part of a file's name."""
    named = f"{environment.device_name}-{environment.software.get('vllm', 'none')}"
    return re.sub(r"[^A-Za-z0-9._-]+", "_", named)
