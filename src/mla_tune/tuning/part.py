"""A part of a run's units, for processes that share nothing but folders, as in an array of jobs."""

__all__ = ["Part"]

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mla_tune.errors import InputError

if TYPE_CHECKING:
    from mla_tune.tuning.job import TableJob

MOST = 10_000


@dataclass(frozen=True)
class Part:
    """One of several parts of the workloads of a run.

    Attributes:
        number: which, from 1.
        of: how many there are.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read ``2/8``.

        Raises:
            InputError: it is no such part.
        """
        match = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text, re.ASCII)
        part = cls(int(match[1]), int(match[2])) if match else None
        if part is None or not 1 <= part.number <= part.of <= MOST:
            raise InputError(
                f"--units is {text!r:.80}", valid=f"I/N with I from 1 to N, and N up to {MOST}"
            )
        return part

    @property
    def folder(self) -> str:
        """The name of its studies' folder, below that of all parts."""
        return f"units-{self.number}-of-{self.of}"

    def of_jobs(self, jobs: "Iterable[TableJob]") -> "list[TableJob]":
        """Its share of the workloads of ``jobs``, in their order; jobs of which it has none go.

        The parts are alike in what they cost, none is empty while another has two, and together
        they are all: every process comes to the same, since nothing counts but the shapes.
        """
        # An option of the command, whose --help loads no more than it shows.
        from mla_tune.tuning.workload_cost import cost_of

        listed = list(jobs)
        every = [
            (job.path, workload.measured_key, cost_of(workload, None))
            for job in listed
            for workload in job.workloads
        ]
        every.sort(key=lambda unit: (-unit[2], unit[0], unit[1]))
        own = {(path, key) for path, key, _ in every[self.number - 1 :: self.of]}
        shares = (
            replace(
                job,
                workloads=tuple(w for w in job.workloads if (job.path, w.measured_key) in own),
            )
            for job in listed
        )
        return [share for share in shares if share.workloads]
