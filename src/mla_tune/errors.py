"""The one family of errors: what happened, what would have been valid, and what to do next."""

__all__ = [
    "INTERRUPTED",
    "DeviceLost",
    "EnvironmentFailure",
    "InputError",
    "MlaTuneError",
    "UnavailableError",
    "WorkloadFailure",
    "nearest_hint",
]

import difflib
from collections.abc import Iterable

from mla_tune.printable import printable_lines

INTERRUPTED = 130
"""The command's exit code after Ctrl-C, as shells have it."""


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
        # Exceptions with keyword-only arguments do not survive pickling on their own, and these
        # cross the boundary between the worker process and the run.
        return _rebuilt, (type(self), self.args, vars(self))


def _rebuilt(
    kind: type[MlaTuneError], args: tuple[object, ...], fields: dict[str, object]
) -> MlaTuneError:
    error = kind.__new__(kind, *args)
    vars(error).update(fields)
    return error


class InputError(MlaTuneError):
    """A file, a flag or a value that cannot be used. Found before any measuring."""

    exit_code = 2


class UnavailableError(InputError):
    """A backend that exists but cannot run on this machine, with the reason."""


class EnvironmentFailure(MlaTuneError):
    """The machine under the run failed (disk full, device lost, worker will not start)."""

    exit_code = 3


class DeviceLost(EnvironmentFailure):
    """A device can no longer be measured on: others of the run can go on with its work."""


class WorkloadFailure(MlaTuneError):
    """One workload could not be tuned: it does not load, or not one plan of it runs.

    The others go on; the run names it in its summary and ends with exit code 1. ``causes`` are the
    reasons alone, without the plans: the same for workloads that fail alike (see `Streak`).
    """

    def __init__(
        self, what: str, *, causes: Iterable[str] = (), valid: str = "", remedy: str = ""
    ) -> None:
        super().__init__(what, valid=valid, remedy=remedy)
        self.causes = tuple(causes) or (what,)


def nearest_hint(value: str, known: Iterable[str]) -> str:
    """Return ``"did you mean X?"`` where ``value`` looks like a misspelt X, or an empty string.

    Names that differ in a digit are names of two things: fp8_e5m2 is no misspelt fp8_e4m3.
    """
    alike = [name for name in known if _digits(name) == _digits(value)]
    close = difflib.get_close_matches(value, alike, n=1, cutoff=0.75)
    return f"did you mean {close[0]!r}?" if close else ""


def _digits(name: str) -> list[str]:
    return [character for character in name if character.isdigit()]
