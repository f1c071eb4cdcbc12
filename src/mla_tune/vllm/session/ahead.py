"""Compiling the decode kernels of a session's plans before they are measured."""

__all__ = ["AheadCompiler"]

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mla_tune.plan.compilation import Compilation
from mla_tune.plan.failure import FailureKind, PlanFailure
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.vllm.triton_compile import KernelCall, active_target
from mla_tune.vllm.triton_compiler import CompilerProcess, Outcome
from mla_tune.vllm.triton_launch import KERNEL_MODULE

KINDS = {Outcome.HUNG: FailureKind.TIMED_OUT, Outcome.ENDED: FailureKind.DIED}
"""What would happen to the worker too. All else the worker finds out by itself."""


class AheadCompiler:
    """Compiles what plans launch, each kernel once."""

    def __init__(self) -> None:
        self._process: CompilerProcess | None = None
        self._done: dict[KernelCall, tuple[Outcome, str]] = {}

    def start(self) -> CompilerProcess:
        """Have the process import vLLM's kernels, which takes some seconds."""
        if self._process is None:
            self._process = CompilerProcess(KERNEL_MODULE)
        return self._process

    def compile(
        self,
        launched: Mapping[Plan, Sequence[KernelCall]],
        limit_s: float,
        tell: Callable[[Plan], None],
    ) -> Compilation:
        """Compile what ``launched`` has and an earlier call had not.

        Args:
            launched: what each plan launches.
            limit_s: seconds that one kernel may take.
            tell: called again and again with a plan while it goes on.
        """
        began_s, some_plan = time.monotonic(), next(iter(launched), UNTUNED)
        every = dict.fromkeys(call for calls in launched.values() for call in calls)
        new = tuple(call for call in every if call not in self._done)
        done: Mapping[KernelCall, tuple[Outcome, str]] = {}
        if new:
            alive = partial(tell, some_plan)
            done = self.start().compile(new, active_target(), limit_s, alive)
        self._done.update(done)
        kernels = sum(outcome is Outcome.COMPILED for outcome, _ in done.values())
        seconds = time.monotonic() - began_s
        failed = {plan: self._failure(plan, calls) for plan, calls in launched.items()}
        failures = {plan: failure for plan, failure in failed.items() if failure is not None}
        return Compilation(kernels, seconds, failures)

    def _failure(self, plan: Plan, calls: Sequence[KernelCall]) -> PlanFailure | None:
        for call in calls:
            outcome, text = self._done.get(call, (Outcome.FOUND, ""))
            # SIGKILL is an operator's or the kernel's doing.
            if outcome in KINDS and "SIGKILL" not in text:
                return PlanFailure(f"{call}: {text}", plan=plan, kind=KINDS[outcome])
        return None

    def close(self) -> None:
        """End the compiler's process."""
        if self._process is not None:
            self._process.close()
