"""The launch constants of a plan in an engine, and what becomes of one that its GPU refuses."""

__all__ = ["FIELD", "LaunchFields", "StepLaunch", "launch_knobs"]

from collections.abc import Callable
from typing import Any

from mla_tune.plan.launch import LAUNCH_KNOBS, launch_of
from mla_tune.plan.plan import Plan
from mla_tune.vllm.plugin.deployment import Deployment
from mla_tune.vllm.plugin.fields import Fields
from mla_tune.vllm.triton_launch import TunedKernel, is_refusal

FIELD = "mla_tune_launch"


def launch_knobs() -> frozenset[str]:
    """The launch constants that can be set in the installed vLLM: all, or none."""
    return frozenset(LAUNCH_KNOBS if TunedKernel.of_vllm() is not None else ())


class StepLaunch:
    """The launch of one plan, for every step that has it.

    Attributes:
        launch: the constants.
        is_refused: whether this GPU, or its compiler, has refused it. vLLM's own launch runs then.
    """

    def __init__(self, launch: Plan, kernel: TunedKernel, deployment: Deployment) -> None:
        self.launch = launch
        self.is_refused = False
        self._kernel = kernel
        self._deployment = deployment

    def run(self, forward: Callable[[], Any]) -> Any:
        """Run ``forward`` with these constants; with vLLM's where they turn out not to run.

        A kernel is compiled and loaded before anything of it is launched, so it can be tried once
        more, in a capture too.
        """
        if self.is_refused:
            return forward()
        try:
            with self._kernel.launching(self.launch):
                return forward()
        except Exception as error:
            if not is_refusal(error):
                raise
            self.is_refused = True
            self._deployment.leave_out(self.launch, error)
        return forward()


class LaunchFields:
    """What a builder sets on the metadata of its steps for their launches."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._kernel = TunedKernel.of_vllm()
        self._known: dict[Plan, Fields] = {}

    def of(self, plan: Plan) -> Fields:
        """Of a step with ``plan``; nothing where the launch is vLLM's own."""
        known = self._known.get(plan)
        if known is None:
            launch = launch_of(plan)
            known = ()
            if launch and self._kernel is not None:
                known = ((FIELD, StepLaunch(launch, self._kernel, self._deployment)),)
            self._known[plan] = known
        return known
