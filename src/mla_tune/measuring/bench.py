"""The bench: one backend's session and a stopwatch, answering for a workload at a time.

The tuner knows only the `Bench` protocol, so that a worker process, a recording or a fake
device can stand behind it.
"""

__all__ = ["Bench", "SessionBench"]

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from mla_tune.device.driver import driver_of
from mla_tune.environment import Environment
from mla_tune.measuring.correctness import OutputCheck
from mla_tune.measuring.load import load_watch_for
from mla_tune.measuring.orders import balanced_orders
from mla_tune.measuring.stopwatch import Sampler, Samples, Stopwatch, stopwatch_for
from mla_tune.measuring.throttle import ThrottleWatch
from mla_tune.plan.compilation import Compilation
from mla_tune.plan.failure import FailureKind, PlanFailure
from mla_tune.plan.kernel_resources import KernelResources
from mla_tune.plan.plan import Plan
from mla_tune.plan.space import PlanSpace
from mla_tune.registry import get_backend
from mla_tune.session import Session, Setup
from mla_tune.shapes import BatchShape, Workload

Announce = Callable[[Plan, str], None]

THROTTLE_PAUSE_S = 2.0

RESTS = (0.0, 1.0, 3.0, 7.0)
"""For how many times as long as it measured a device rests before the next samples, each time that
it was slowed down with the rest before. Kernels that stream the whole memory without a pause hold a
GPU at its power cap: an H200 fell to 1350 of 1980 MHz within a second of FLASH_ATTN_MLA on batches
of 200 requests of 128k, and did so again whenever the same samples were taken in the same way."""
LONGEST_REST_S = 10.0


class Bench(Protocol):
    """Something that can time plans of one workload at a time."""

    environment: Environment

    def open(self, setup: Setup) -> None:
        """Build what ``setup`` says, dropping what was there.

        Raises:
            UnavailableError: the backend cannot be built here.
        """
        ...

    def plan_space(self, shapes: Sequence[BatchShape]) -> PlanSpace:
        """The effective plans that ``shapes`` can share. Allocates nothing.

        Raises:
            KeyError: the bench plays back what was measured, and these shapes were not.
        """
        ...

    def load(self, workload: Workload) -> None:
        """Make the inputs of ``workload``, which the calls below are about."""
        ...

    def compile(self, plans: Sequence[Plan]) -> Compilation:
        """Compile the kernels of ``plans`` for the loaded workload, on all cores.

        What is measured afterwards finds them in the compiler's cache. Nothing is done where
        kernels come compiled.
        """
        ...

    def race(
        self,
        plans: Sequence[Plan],
        rounds: int,
        seed: int,
        cases: Sequence[int] | None = None,
    ) -> dict[Plan, Samples]:
        """Time ``plans`` side by side: each round samples all of them in a new order.

        Args:
            plans: which.
            rounds: how many.
            seed: what the orders follow from, as `balanced_orders` has them.
            cases: the numbers of those to sample; None for all of the workload's.

        Raises:
            PlanFailure: one of them failed; `PlanFailure.plan` says which.
        """
        ...

    def verify(self, plan: Plan) -> None:
        """Compare a plan's output with the float64 reference and with the default's output.

        Raises:
            PlanFailure: of kind ``wrong result``, with the error found.
        """
        ...

    def renew(self) -> bool:
        """Have another process measure from here on: what is open stays so, nothing is loaded.

        False, and nothing changes, where there is one process only.
        """
        ...

    def close(self) -> None:
        """Give back what is held."""
        ...


class SessionBench:
    """A bench in this process.

    Args:
        environment: of the device that sessions run on.
        announce: called with a plan and the step (``warm-up``, ``sample`` or ``check``) before
            each step that could hang or die on it, now and then with ``compile``, and with
            ``rest`` where nothing is measured on purpose.
    """

    def __init__(
        self, environment: Environment, announce: Announce = lambda _plan, _step: None
    ) -> None:
        self.environment = environment
        self._announce = announce
        self._session: Session | None = None
        self._stopwatch: Stopwatch | None = None
        self._shapes: tuple[BatchShape, ...] = ()
        self._samplers: dict[tuple[BatchShape, Plan], Sampler] = {}
        self._resources: dict[Plan, KernelResources] = {}
        self._rest = 0

    def open(self, setup: Setup) -> None:
        """As `Bench.open`."""
        self.close()
        self._session = get_backend(setup.backend).open(setup)
        self._mode = setup.mode
        device = self._session.device
        driver = driver_of(device)
        self._watch = ThrottleWatch(driver, self.environment.locked_sm_clock_mhz)
        self._load = load_watch_for(device.type, driver)

    @property
    def _opened(self) -> Session:
        assert self._session is not None, "open() comes first"
        return self._session

    def plan_space(self, shapes: Sequence[BatchShape]) -> PlanSpace:
        """As `Bench.plan_space`."""
        return self._opened.plan_space(shapes)

    def load(self, workload: Workload) -> None:
        """As `Bench.load`."""
        self._samplers.clear()
        self._resources.clear()
        self._rest = 0
        self._shapes = workload.shapes
        self._stopwatch = None  # its graphs' memory is there for these batches
        self._stopwatch = stopwatch_for(self._opened.device, self._mode)
        self._opened.load(self._shapes)
        default = self.plan_space(self._shapes).default
        self._check = OutputCheck(self._opened, self._shapes, default)

    def compile(self, plans: Sequence[Plan], limit_s: float = math.inf) -> Compilation:
        """As `Bench.compile`; a kernel that takes longer than ``limit_s`` seconds is given up."""
        return self._opened.compile(plans, limit_s, lambda plan: self._announce(plan, "compile"))

    def race(
        self,
        plans: Sequence[Plan],
        rounds: int,
        seed: int,
        cases: Sequence[int] | None = None,
    ) -> dict[Plan, Samples]:
        """As `Bench.race`; what a slowed-down device measured is thrown away and taken again.

        The longer it has to `RESTS` for clean samples, the longer it does with this workload.
        """
        wanted = frozenset(range(len(self._shapes)) if cases is None else cases)
        for plan in plans:
            with _blamed(plan):
                self._warm_up(plan, wanted)
        throttled = 0
        while True:
            orders = balanced_orders(plans, rounds, seed)
            taken = self._rounds(plans, orders, wanted, RESTS[self._rest])
            reason = self._watch.slowed_down()
            if reason is None or self._rest == len(RESTS) - 1:
                break
            self._rest += 1
            throttled += rounds
            self._leave_alone(plans[0], THROTTLE_PAUSE_S)
        others = self._load.others()
        return {
            plan: Samples(
                tuple(latencies), throttled, reason or "", others, self._resources.get(plan)
            )
            for plan, latencies in taken.items()
        }

    def _rounds(
        self,
        plans: Sequence[Plan],
        orders: Iterable[Sequence[Plan]],
        wanted: frozenset[int],
        rest: float,
    ) -> dict[Plan, list[tuple[float, ...]]]:
        taken: dict[Plan, list[tuple[float, ...]]] = {plan: [] for plan in plans}
        took_s = 0.0
        for order in orders:
            for plan in order:
                # Not after the last ones: an idle device does not show what it was slowed down by.
                if rest and took_s:
                    self._leave_alone(plan, min(rest * took_s, LONGEST_REST_S))
                began_s = time.monotonic()
                with _blamed(plan):
                    self._announce(plan, "sample")
                    taken[plan].append(
                        tuple(
                            self._samplers[shape, plan]() if number in wanted else math.nan
                            for number, shape in enumerate(self._shapes)
                        )
                    )
                took_s = time.monotonic() - began_s
        return taken

    def _leave_alone(self, plan: Plan, seconds: float) -> None:
        """Let the device rest, which no limit of a sample counts."""
        self._announce(plan, "rest")
        time.sleep(seconds)

    def _warm_up(self, plan: Plan, wanted: frozenset[int]) -> None:
        assert self._stopwatch is not None, "load() comes first"
        for number, shape in enumerate(self._shapes):
            if number in wanted and (shape, plan) not in self._samplers:
                self._announce(plan, "warm-up")
                prepared = self._opened.prepare(shape, plan)
                self._samplers[shape, plan] = self._stopwatch.sampler(prepared)
                if prepared.resources is not None:
                    known = self._resources.get(plan)
                    self._resources[plan] = prepared.resources.most(known)

    def verify(self, plan: Plan) -> None:
        """As `Bench.verify`."""
        with _blamed(plan):
            self._announce(plan, "check")
            self._check.verify(plan)

    def renew(self) -> bool:
        """As `Bench.renew`: there is no other process."""
        return False

    def close(self) -> None:
        """Give back the session's memory."""
        self._samplers.clear()
        self._stopwatch = None
        if self._session is not None:
            self._session.close()
            self._session = None


@contextmanager
def _blamed(plan: Plan) -> Iterator[None]:
    """Turn whatever a plan raises into a `PlanFailure` that names the plan as it was asked for."""
    try:
        yield
    except PlanFailure as failure:
        raise failure.about(plan) from failure
    except Exception as error:
        out_of_memory = "out of memory" in str(error) or "can't allocate memory" in str(error)
        is_memory = out_of_memory or isinstance(error, MemoryError)
        first_line = str(error).splitlines()[0] if str(error) else "no message"
        raise PlanFailure(
            f"{type(error).__name__}: {first_line}",
            plan=plan,
            kind=FailureKind.OUT_OF_MEMORY if is_memory else FailureKind.RAISED,
        ) from error
