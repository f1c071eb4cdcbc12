"""Who is told how tuning goes."""

__all__ = ["Observer", "SilentObserver"]

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from mla_tune.plan.compilation import Compilation
from mla_tune.plan.kernel_resources import KernelResources
from mla_tune.plan.plan import Plan
from mla_tune.shapes import Workload
from mla_tune.tuning.study import Outcome


class Observer(Protocol):
    """Who is told how one workload goes."""

    def planned(self, workload: Workload, num_plans: int) -> None: ...
    def compiling(self, workload: Workload, num_plans: int) -> None: ...
    def compiled(self, workload: Workload, done: Compilation) -> None: ...
    def tried(self, workload: Workload, outcome: Outcome, best_us: float | None) -> None: ...
    def confirming(self, workload: Workload, finalists: Sequence[Plan], rounds: int) -> None: ...
    def won(self, workload: Workload, plan: Plan, resources: KernelResources) -> None: ...
    def kept(self, workload: Workload, doubt: str) -> None: ...
    def remembered(self, workload: Workload, measured: datetime | None) -> None: ...


class SilentObserver:
    """An observer that says nothing."""

    def planned(self, workload: Workload, num_plans: int) -> None:
        """So many plans are to be tried."""

    def compiling(self, workload: Workload, num_plans: int) -> None:
        """What kernels of so many plans lack is being compiled, on all cores."""

    def compiled(self, workload: Workload, done: Compilation) -> None:
        """Kernels of its plans have been compiled."""

    def tried(self, workload: Workload, outcome: Outcome, best_us: float | None) -> None:
        """A plan was tried; ``best_us`` is the incumbent's latency in microseconds."""

    def confirming(self, workload: Workload, finalists: Sequence[Plan], rounds: int) -> None:
        """The finalists have been raced for so many rounds."""

    def won(self, workload: Workload, plan: Plan, resources: KernelResources) -> None:
        """What the decode kernel of the plan that won in this process takes of the GPU."""

    def kept(self, workload: Workload, doubt: str) -> None:
        """There is no verdict this time, and an earlier entry stays."""

    def remembered(self, workload: Workload, measured: datetime | None) -> None:
        """An earlier run has decided it, and measured it last at a local time, if that is known."""
