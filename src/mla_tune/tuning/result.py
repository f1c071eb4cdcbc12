"""What a run decided, and what it could not."""

__all__ = ["Cost", "Failure", "TuneResult", "TunedTable"]

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mla_tune.errors import MlaTuneError
from mla_tune.printable import counted, printable
from mla_tune.table import Entry, Table


@dataclass(frozen=True)
class Cost:
    """What one table cost a run.

    Attributes:
        seconds: from the opening of its session to its last entry; `compiling_s` of them ...
        compiling_s: ... for compiling ahead, on all cores, ...
        kernels: ... so many that the compiler's cache did not have.
    """

    seconds: float
    compiling_s: float = 0.0
    kernels: int = 0


@dataclass(frozen=True, repr=False)
class TunedTable:
    """A table that a run wrote to.

    Attributes:
        path: its file.
        entries: those that this run decided, or found decided by an earlier one, in the order of
            the shapes. Latencies are in µs.
        cost: in this run; None where it was interrupted, or where several devices shared it.
    """

    path: Path
    entries: tuple[Entry, ...]
    cost: Cost | None = None

    def __repr__(self) -> str:
        plans = sum(bool(entry.plan) for entry in self.entries)
        entries = counted(len(self.entries), "entry")
        return printable(f"<TunedTable {self.path}: {entries}, {plans} with a plan>")

    @cached_property
    def table(self) -> Table:
        """The whole table, for lookups: entries that other runs put there are in it too.

        It is read from the file when it is first asked for.

        Raises:
            InputError: the file is no longer there, or no longer a table.
        """
        return Table.load(self.path)


@dataclass(frozen=True, repr=False)
class Failure:
    """Batch shapes of one table that could not be tuned, or whose entries could not be written.

    Attributes:
        path: the file of the table.
        shapes: their batch specs.
        error: why; ``error.what``, ``error.valid`` and ``error.remedy`` are its parts.
    """

    path: Path
    shapes: tuple[str, ...]
    error: MlaTuneError

    def __repr__(self) -> str:
        return printable(f"<Failure {self.what}: {self.error.what}>")

    @property
    def what(self) -> str:
        """The table and the shape, or how many shapes where one cause failed several."""
        what = self.shapes[0] if len(self.shapes) == 1 else f"{len(self.shapes)} batch shapes"
        return f"{self.path.stem}: {what}"


@dataclass(frozen=True, repr=False)
class TuneResult:
    """The outcome of a run.

    Attributes:
        tables: each table that has an entry from this run. A table none of whose shapes could be
            tuned is in ``failures`` alone.
        failures: what could not be tuned; empty when everything was.
        remarks: what the reader should know of single devices, where there were several.
    """

    tables: tuple[TunedTable, ...]
    failures: tuple[Failure, ...]
    remarks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        entries = counted(sum(len(table.entries) for table in self.tables), "entry")
        failures = counted(len(self.failures), "failure")
        return f"<TuneResult {counted(len(self.tables), 'table')}, {entries}, {failures}>"
