"""The one family of errors: what happened, what would have been valid, and what to do next."""

__all__ = [
    "EnvironmentFailure",
    "InputError",
    "MlaTuneError",
    "PlanFailure",
    "UnavailableError",
    "WorkloadFailure",
    "nearest_hint",
]

import difflib
from collections.abc import Iterable

from mla_tune.printable import printable_lines


class MlaTuneError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        what: what is wrong, naming the place (file, line, key) and the value.
        valid: what would have been valid, or empty.
        remedy: what the reader can do next, or empty.
    """

    exit_code = 1

    def __init__(self, what: str, *, valid: str = "", remedy: str = "") -> None:
        super().__init__(what, valid, remedy)
        self.what = what
        self.valid = valid
        self.remedy = remedy

    def __str__(self) -> str:
        lines = [self.what]
        if self.valid:
            lines.append(f"  valid: {self.valid}")
        if self.remedy:
            lines.append(f"  to do: {self.remedy}")
        # What is wrong is often quoted from a file that another wrote.
        return printable_lines("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword-only arguments do not survive pickling on their own,
        # and these cross the boundary between the worker process and the tuner.
        return _rebuild, (type(self), self.what, self.valid, self.remedy)


def _rebuild(kind: type[MlaTuneError], what: str, valid: str, remedy: str) -> MlaTuneError:
    return kind(what, valid=valid, remedy=remedy)


class InputError(MlaTuneError):
    """A file, a flag or a value that cannot be used. Found before any measuring."""

    exit_code = 2


class UnavailableError(InputError):
    """A backend that exists but cannot run on this machine, with the reason."""


class EnvironmentFailure(MlaTuneError):
    """The machine under the run failed (disk full, device lost, worker will not start)."""

    exit_code = 3


class WorkloadFailure(MlaTuneError):
    """One workload could not be tuned: it does not load, or not one plan of it runs.

    The others go on; the run names it in its summary and ends with exit code 1. ``causes`` are what
    it failed of, without the plans: the same for workloads that fail alike (see `Streak`).
    """

    def __init__(
        self, what: str, *, causes: Iterable[str] = (), valid: str = "", remedy: str = ""
    ) -> None:
        super().__init__(what, valid=valid, remedy=remedy)
        self.causes = tuple(causes) or (what,)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_workload_failure, (self.what, self.causes, self.valid, self.remedy)


def _rebuild_workload_failure(
    what: str, causes: tuple[str, ...], valid: str, remedy: str
) -> WorkloadFailure:
    return WorkloadFailure(what, causes=causes, valid=valid, remedy=remedy)


class PlanFailure(MlaTuneError):
    """One plan could not be measured or gave a wrong result. Data for the study, not a crash.

    ``kind`` is one of ``raised``, ``timed out``, ``died``, ``out of memory``, ``wrong result``
    or ``not applied``; it is what a quarantine entry is filed under. ``plan`` is the plan to
    blame, set by whoever ran it.
    """

    def __init__(
        self, what: str, *, kind: str = "raised", valid: str = "", remedy: str = ""
    ) -> None:
        super().__init__(what, valid=valid, remedy=remedy)
        self.kind = kind
        self.plan: object = None

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_plan_failure, (self.what, self.kind, self.valid, self.remedy, self.plan)


def _rebuild_plan_failure(
    what: str, kind: str, valid: str, remedy: str, plan: object
) -> PlanFailure:
    failure = PlanFailure(what, kind=kind, valid=valid, remedy=remedy)
    failure.plan = plan
    return failure


def nearest_hint(value: str, known: Iterable[str]) -> str:
    """Return ``"did you mean X?"`` where ``value`` looks like a misspelt X, or an empty string.

    Names that differ in a digit are names of two things: fp8_e5m2 is no misspelt fp8_e4m3.
    """
    alike = [name for name in known if _digits(name) == _digits(value)]
    close = difflib.get_close_matches(value, alike, n=1, cutoff=0.75)
    return f"did you mean {close[0]!r}?" if close else ""


def _digits(name: str) -> list[str]:
    return [character for character in name if character.isdigit()]
