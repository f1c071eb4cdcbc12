"""What a run is asked to do, by the command's flags or from Python: defaults and bounds."""

__all__ = [
    "FACTOR",
    "GUARDS",
    "GUARD_SHARE",
    "MOST_PROCESSES",
    "MOST_ROUNDS",
    "SECONDS",
    "Bounds",
    "RunOptions",
]

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mla_tune.device.choice import check_device_name, check_device_names
from mla_tune.errors import InputError
from mla_tune.shapes.batch import MOST_REQUESTS
from mla_tune.tuning.launches import LAUNCHES
from mla_tune.tuning.part import Part

if TYPE_CHECKING:
    from mla_tune.traffic.served_lengths import ServedLengths


@dataclass(frozen=True)
class Bounds:
    """The numbers that an option takes, both ends included; finite ones alone."""

    least: float
    most: float | None = None
    whole: bool = False

    def check(self, option: str, value: object) -> None:
        """Make sure that ``value`` is such a number.

        Raises:
            InputError: it is not; names the option and what is valid.
        """
        is_number = isinstance(value, int if self.whole else int | float)
        if is_number and not isinstance(value, bool) and self._holds(value):
            return
        kind = "a whole number" if self.whole else "a number"
        upper = "" if self.most is None else f" to {self.most}"
        raise InputError(f"{option} is {value!r:.80}", valid=f"{kind} from {self.least}{upper}")

    def _holds(self, value: Any) -> bool:
        most = math.inf if self.most is None else self.most
        return bool(self.least <= value <= most and value != math.inf)


MOST_ROUNDS = 100_000  # a night for a kernel of 300 us
MOST_PROCESSES = 100
SECONDS = Bounds(0.1, 7 * 86400)  # poll(2) takes no wait beyond 24 days
FACTOR = Bounds(1.0)

GUARDS = ("longest", "served")
"""Up to where a graph's entry must not be slower: all that the engine serves, or what it served."""
GUARD_SHARE = Bounds(0.0001, 0.05)


@dataclass(frozen=True)
class RunOptions:
    """The options of a run; `mla_tune.tune` and ``mla-tune --help`` explain them.

    Raises:
        InputError: a number out of its bounds, a device's name that cannot be one, or options
            that exclude each other.
    """

    shapes: Path | Mapping[str, Any] | None = None
    backends: tuple[str, ...] = ()
    out: Path = Path("tuned_configs")
    study_dir: Path | None = None
    storage: str | None = None
    units: str | None = None
    device: str = "auto"
    devices: str | None = None
    ray: str | None = None
    max_tokens: int | None = None
    tensor_parallel_size: tuple[int, ...] = ()
    min_speedup: float | None = None
    confirm_seconds: float = 30.0
    processes: int = 3
    launches: str | None = None
    guard: str = "longest"
    guard_share: float = 0.005
    served: Path | None = None
    sample_timeout: float = 30.0
    plan_timeout: float = 180.0
    record: Path | None = None
    record_rounds: int = 0
    recording: Path | None = None
    replace: bool = False
    again: bool = False
    wait: bool = False

    def __post_init__(self) -> None:
        check_device_name(self.device)
        self._check_several()
        self._check_storage()
        self._check_guards()
        if self.part is not None and self.database is not None:
            raise InputError(
                "--units and a database cannot be given together",
                remedy="runs that share a database take what is free; leave --units out",
            )
        for size in self.tensor_parallel_size:
            Bounds(1, MOST_REQUESTS, whole=True).check("tensor_parallel_size", size)
        if self.max_tokens is not None:
            Bounds(1, whole=True).check("max_tokens", self.max_tokens)
        if self.min_speedup is not None:
            FACTOR.check("min_speedup", self.min_speedup)
        for option in ("confirm_seconds", "sample_timeout", "plan_timeout"):
            SECONDS.check(option, getattr(self, option))
        if self.launches is not None and self.launches not in LAUNCHES:
            raise InputError(f"launches is {self.launches!r:.80}", valid=", ".join(LAUNCHES))
        Bounds(0, MOST_ROUNDS, whole=True).check("record_rounds", self.record_rounds)
        Bounds(1, MOST_PROCESSES, whole=True).check("processes", self.processes)

    def _check_several(self) -> None:
        """Refuse what is of one device beside what names several."""
        if self.devices is not None:
            check_device_names(self.devices)
        given = {
            "--device": self.device != RunOptions.device,
            "--devices": self.devices is not None,
            "--record": self.record is not None,
            "--recording": self.recording is not None,
        }
        excluded = {
            "--devices": ("--device", "--record", "--recording"),
            "--ray": ("--devices", "--record", "--recording"),
        }
        for option, value in (("--devices", self.devices), ("--ray", self.ray)):
            for other in excluded[option] if value is not None else ():
                if given[other]:
                    raise InputError(f"{other} and {option} cannot be given together")

    def _check_storage(self) -> None:
        if self.storage is None:
            return
        if not self.storage:
            raise InputError("--storage is empty", valid="the URL of a database, or a folder")
        if self.database is None and self.study_dir is not None:
            raise InputError(
                "--storage and --study-dir name two folders of journals", remedy="give one of them"
            )
        if self.database is not None:
            from mla_tune.tuning.study.database import check_storage_url

            check_storage_url(self.database)
            # Runs that share a database would forget what the others have just decided.
            for option, given in (
                ("--record", self.record),
                ("--recording", self.recording),
                ("--again", self.again or None),
            ):
                if given is not None:
                    raise InputError(f"{option} and a database cannot be given together")

    def _check_guards(self) -> None:
        if self.guard not in GUARDS:
            raise InputError(f"guard is {self.guard!r:.80}", valid=", ".join(GUARDS))
        GUARD_SHARE.check("guard_share", self.guard_share)
        if self.guard != "served":
            for option in ("guard_share", "served"):
                if getattr(self, option) != getattr(RunOptions, option):
                    name = option.replace("_", "-")
                    raise InputError(f"--{name} is given without --guard served")
        elif self.served is None:
            raise InputError(
                "--guard served needs a record of what was served",
                remedy="serve for a day with MLA_TUNE_RECORD=PATH, then give --served PATH; "
                "--guard longest needs none",
            )
        elif self.recording is not None:
            raise InputError("--guard served and --recording cannot be given together")

    @cached_property
    def served_lengths(self) -> "ServedLengths | None":
        """What bounds the guards of graph tables; None where the engine alone does.

        Raises:
            InputError: the record cannot be read.
        """
        if self.served is None:
            return None
        from mla_tune.traffic.served_lengths import ServedLengths

        return ServedLengths.load(self.served, self.guard_share)

    @property
    def database(self) -> str | None:
        """The URL of the database that has the studies; None where they are journals."""
        return self.storage if self.storage is not None and "://" in self.storage else None

    @property
    def part(self) -> Part | None:
        """The part of the workloads that ``--units`` names; None for all of them."""
        return None if self.units is None else Part.parse(self.units)

    @property
    def kept_in(self) -> str:
        """Where finished trials are, for a person; without the password of a database."""
        if self.database is None:
            return str(self.study_folder)
        from mla_tune.tuning.study.database import check_storage_url

        return check_storage_url(self.database).render_as_string(hide_password=True)

    @cached_property
    def study_folder(self) -> Path:
        """``--study-dir`` or ``--storage``, or a place of the user's that survives reboots.

        Parts of a run have a folder each below it.

        Raises:
            InputError: the user has no home folder, as in a container run under a bare number.
        """
        return self._whole_folder() / (self.part.folder if self.part is not None else "")

    def _whole_folder(self) -> Path:
        if self.study_dir is not None:
            return self.study_dir
        if self.storage is not None and self.database is None:
            return Path(self.storage)
        import platformdirs

        try:
            folder = platformdirs.user_state_path("mla-tune") / "studies"
        except (RuntimeError, KeyError):  # neither HOME nor an entry in the list of users
            folder = Path("~")
        if not folder.is_absolute():
            raise InputError(
                "there is no home folder for the studies, from which a run resumes",
                remedy="name one with --study-dir, or set HOME",
            )
        return folder
