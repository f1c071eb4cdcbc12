"""When a table is given up: one cause for several of its workloads in a row."""

__all__ = ["Streak"]

import re

from mla_tune.errors import MlaTuneError, WorkloadFailure

LONGEST = 3

# What differs between two workloads that fail alike: batch specs, addresses and figures.
_BATCH_SPEC = re.compile(r"\b\d*q\d+\w*(?:\{[^}]*\})?")
_FIGURE = re.compile(r"\b0x[0-9a-f]+|\d+(?:\.\d+)?(?:e[-+]?\d+)?", re.IGNORECASE)
# The next workload may be smaller.
_MEMORY = re.compile(r"out of memory|allocate memory|MemoryError|no memory", re.IGNORECASE)


class Streak:
    """Counts workloads that fail one after another for the same cause.

    With a backend whose every output is wrong, each of a table's workloads costs as much as one
    that can be tuned, and says nothing new.
    """

    def __init__(self) -> None:
        self._causes: frozenset[str] = frozenset()
        self._length = 0

    def end(self) -> None:
        """A workload was tuned."""
        self._length = 0

    def is_over(self, error: MlaTuneError) -> bool:
        """Count a workload that failed with ``error``; whether that was one too many."""
        causes = _causes(error)
        if any(map(_MEMORY.search, causes)):
            self._length = 0
            return False
        self._length = self._length + 1 if causes == self._causes else 1
        self._causes = causes
        return self._length >= LONGEST


def _causes(error: MlaTuneError) -> frozenset[str]:
    told = error.causes if isinstance(error, WorkloadFailure) else (error.what,)
    return frozenset(map(_without_figures, told))


def _without_figures(cause: str) -> str:
    return _FIGURE.sub("#", _BATCH_SPEC.sub("#", cause.removeprefix("quarantined: ")))
