"""The bench: one backend's session and a stopwatch, answering for a workload at a time.

The tuner knows only the `Bench` protocol, so that a worker process, a recording or a fake
device can stand behind it.
"""

__all__ = ["Bench", "SessionBench"]

import random
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from mla_tune.backends import get_backend
from mla_tune.backends.interface import Setup
from mla_tune.correctness import OutputCheck
from mla_tune.environment import Environment
from mla_tune.errors import PlanFailure
from mla_tune.knobs import Plan, PlanSpace
from mla_tune.measure import Sampler, Samples, ThrottleWatch, stopwatch_for
from mla_tune.shapes import BatchShape

Announce = Callable[[Plan, str], None]

THROTTLE_PAUSE_S = 2.0
THROTTLE_RETRIES = 10


class Bench(Protocol):
    """Something that can time plans of one workload at a time."""

    environment: Environment

    def plan_space(self, shapes: Sequence[BatchShape]) -> PlanSpace:
        """The effective plans that ``shapes`` can share. Allocates nothing."""
        ...

    def load(self, shapes: Sequence[BatchShape]) -> None:
        """Make ``shapes`` the current workload."""
        ...

    def race(self, plans: Sequence[Plan], rounds: int, seed: int) -> dict[Plan, Samples]:
        """Time ``plans`` side by side: each round samples all of them in a new random order.

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


class SessionBench:
    """A bench in this process.

    Args:
        setup: what to build the session for.
        environment: of the device the session runs on.
        announce: called with a plan and the step (``warm-up``, ``sample`` or ``check``) before
            each step that could hang or die on it.
    """

    def __init__(
        self,
        setup: Setup,
        environment: Environment,
        announce: Announce = lambda _plan, _step: None,
    ) -> None:
        self.environment = environment
        self._session = get_backend(setup.backend).open(setup)
        self._stopwatch = stopwatch_for(self._session.device, setup.mode)
        self._watch = ThrottleWatch(self._session.device)
        self._announce = announce
        self._shapes: tuple[BatchShape, ...] = ()
        self._samplers: dict[tuple[BatchShape, Plan], Sampler] = {}
        self._check: OutputCheck | None = None

    def plan_space(self, shapes: Sequence[BatchShape]) -> PlanSpace:
        return self._session.plan_space(shapes)

    def load(self, shapes: Sequence[BatchShape]) -> None:
        self._samplers.clear()
        self._shapes = tuple(shapes)
        self._session.load(self._shapes)
        default = self._session.plan_space(self._shapes).default
        self._check = OutputCheck(self._session, self._shapes, default)

    def race(self, plans: Sequence[Plan], rounds: int, seed: int) -> dict[Plan, Samples]:
        order = random.Random(seed)
        taken: dict[Plan, list[tuple[float, ...]]] = {plan: [] for plan in plans}
        for plan in plans:
            with _blamed(plan):
                self._warm_up(plan)
        throttled, tainted = 0, ""
        for _ in range(rounds):
            latencies = self._round(order.sample(list(plans), len(plans)))
            while (reason := self._watch.slowed_down()) is not None:
                if throttled == THROTTLE_RETRIES:
                    tainted = reason
                    break
                throttled += 1
                time.sleep(THROTTLE_PAUSE_S)
                latencies = self._round(order.sample(list(plans), len(plans)))
            for plan, latency in latencies.items():
                taken[plan].append(latency)
        return {plan: Samples(tuple(taken[plan]), throttled, tainted) for plan in plans}

    def _warm_up(self, plan: Plan) -> None:
        for shape in self._shapes:
            if (shape, plan) not in self._samplers:
                self._announce(plan, "warm-up")
                prepared = self._session.prepare(shape, plan)
                self._samplers[shape, plan] = self._stopwatch.sampler(prepared)

    def _round(self, plans: Sequence[Plan]) -> dict[Plan, tuple[float, ...]]:
        latencies = {}
        for plan in plans:
            with _blamed(plan):
                self._announce(plan, "sample")
                latencies[plan] = tuple(self._samplers[shape, plan]() for shape in self._shapes)
        return latencies

    def verify(self, plan: Plan) -> None:
        assert self._check is not None, "load() comes first"
        with _blamed(plan):
            self._announce(plan, "check")
            self._check.verify(plan)

    def close(self) -> None:
        self._samplers.clear()
        self._session.close()


class _blamed:  # noqa: N801 - reads as a statement
    """Turn whatever a plan raises into a `PlanFailure` that names the plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or not isinstance(error, Exception):
            return
        if isinstance(error, PlanFailure):
            error.plan = self._plan
            return
        out_of_memory = "out of memory" in str(error) or "can't allocate memory" in str(error)
        failure = PlanFailure(
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
            kind="out of memory" if out_of_memory or isinstance(error, MemoryError) else "raised",
        )
        failure.plan = self._plan
        raise failure from error
