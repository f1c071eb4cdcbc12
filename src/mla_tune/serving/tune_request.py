"""What the tuning process is asked to do, and what it answers."""

__all__ = ["MIN_SPEEDUP_OF_ONE_PROCESS", "TuneAnswer", "TuneRequest"]

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mla_tune.serving.message import Message

MIN_SPEEDUP_OF_ONE_PROCESS = 1.02
"""The gate of a start. One process's figures are off by some 0.5 % from another's, see
docs/h100.md."""


@dataclass(frozen=True)
class TuneRequest(Message):
    """One table, made as far as there is time.

    Attributes:
        shapes: the keys of a shapes file, its captured sizes in the order in which they matter.
        backend: to tune.
        out: folder of the table.
        study_dir: folder of the journals.
        device: as of ``--device``.
        devices: several, as of ``--devices``; None for the one of ``device``.
        processes: in how many processes a plan is raced before it is published.
        launches: as of ``--launches``.
    """

    shapes: dict[str, Any]
    backend: str
    out: Path
    study_dir: Path
    device: str
    devices: str | None
    processes: int
    launches: str | None = None


@dataclass(frozen=True)
class TuneAnswer(Message):
    """How a tuning ended.

    Attributes:
        failed: batch shapes that cannot be tuned, as their keys in a table.
        problem: what ended it early, in a line; empty where it came to its end.
    """

    failed: tuple[str, ...] = ()
    problem: str = ""
