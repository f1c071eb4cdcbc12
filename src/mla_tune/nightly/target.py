"""What each table of a folder is here: one to look after, or one to make anew from its shapes."""

__all__ = ["InFolder", "Target", "targets_in"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from packaging.version import InvalidVersion, Version

from mla_tune.environment import Environment
from mla_tune.errors import InputError, UnavailableError
from mla_tune.nightly.changes import software_changes
from mla_tune.nightly.history import History, history_path
from mla_tune.nightly.site import Site
from mla_tune.shapes import Workload
from mla_tune.table import Entry, TableFile
from mla_tune.table.folders import tables_in
from mla_tune.table.naming import table_path
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.pool.member import Kind, kind_of


@dataclass(frozen=True)
class Target:
    """One table that a kind of device should have with this software.

    Attributes:
        job: its shapes, here; ``job.path`` is where the table belongs.
        environment: of the devices that measure it.
        source: the table whose shapes those are: itself, or one for another release or device.
        file: what ``source`` says.
        reasons: why it has to be tuned whole, or nothing.
        history: of the table.
    """

    job: TableJob
    environment: Environment
    source: Path
    file: TableFile
    reasons: tuple[str, ...]
    history: History

    @property
    def path(self) -> Path:
        return self.job.path

    @property
    def kind(self) -> Kind:
        """Of the devices that can measure it."""
        return kind_of(self.environment)

    @property
    def digests(self) -> dict[str, str]:
        """Of what decides how fast its backend is here, by name."""
        return self.job.header.software_digests or {}

    @property
    def workloads(self) -> dict[str, Workload]:
        """What can be measured here, by shape."""
        return {str(workload): workload for workload in self.job.workloads}

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries that can be measured here."""
        here = self.workloads
        return tuple(entry for entry in self.file.entries if entry.shape in here)


class InFolder(NamedTuple):
    """What a folder holds: the targets, by path, and why a table cannot be looked after."""

    targets: list[Target]
    broken: dict[Path, str]


def targets_in(folder: Path, sites: Sequence[Site], notice: Callable[[str], None]) -> InFolder:
    """One target for each table that one of these devices should have with this software.

    Tables that cannot be measured on a kind of device are told of and left out.

    Raises:
        InputError: there is no table in ``folder``, or none that can be measured here.
    """
    paths, problems = tables_in(folder) if folder.is_dir() else ([], [])
    for problem in problems:
        notice(problem)
    if not paths:
        raise InputError(f"{folder} has no tables", valid="a folder of tables (*.yaml)")
    found: dict[Path, list[Target]] = {}
    broken: dict[Path, str] = {}
    kinds = {kind_of(site.bench.environment): site for site in reversed(sites)}
    for path in paths:
        for site in kinds.values():
            try:
                place, target = _target(path, TableFile.load(path), site)
            except UnavailableError as error:
                where = f"on {site.bench.environment.device_name}" if len(kinds) > 1 else "here"
                notice(f"{path.name}: not {where}: {error.what}")
            except InputError as error:
                broken[path] = error.what
            else:
                found.setdefault(place, []).append(target)
    if not found and not broken:
        raise UnavailableError(
            f"no table of {folder} can be measured here",
            valid="tables of backends that run on this device",
        )
    targets = [max(found[place], key=_nearness) for place in sorted(found)]
    for told in (told for target in targets for told in target.history.notices):
        notice(told)
    return InFolder(targets, broken)


def _target(path: Path, file: TableFile, site: Site) -> tuple[Path, Target]:
    """Where the table that is made of ``file`` there would be by its own name, and the target."""
    folder, environment = path.parent, site.bench.environment
    job = site.job(file, folder)
    place = job.path
    is_own = table_path(folder, file.header) == place
    if is_own:
        job = replace(job, path=path)  # whatever the file is called
    reasons = tuple(software_changes(file, environment)) if is_own else (_newness(file, job),)
    history = History.load(history_path(folder, job.header))
    return place, Target(job, environment, path, file, reasons, history)


def _newness(file: TableFile, job: TableJob) -> str:
    was, now = file.header.device.name, job.header.device.name
    if was != now:
        return f"new for {now}, the shapes of {was}"
    old, new = (header.software.get("vllm", "none") for header in (file.header, job.header))
    if old != new:
        return f"new for vLLM {new}, the shapes of {old}"
    name, was, now = file.header.first_difference(job.header) or ("settings", "others", "these")
    return f"new for {name} {now}, the shapes of {was}"


def _nearness(target: Target) -> tuple[bool, bool, Version]:
    """Of several tables that would become one: itself, else of this device, of the last release."""
    is_here = target.file.header.device.name == target.job.header.device.name
    return target.source == target.path, is_here, _release(target.file)


def _release(file: TableFile) -> Version:
    try:
        return Version(file.header.software.get("vllm", "0"))
    except InvalidVersion:
        return Version("0")
