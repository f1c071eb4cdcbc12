"""Checking that a plan took, and giving a batch's metadata memory of its own."""

__all__ = ["AppliedCheck", "detach", "scratch_values"]

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from mla_tune.plan.failure import FailureKind, PlanFailure
from mla_tune.plan.kernel_resources import KernelResources
from mla_tune.plan.launch import launch_of
from mla_tune.plan.plan import Plan
from mla_tune.vllm.compat import layers, prefills
from mla_tune.vllm.observe import calls_of
from mla_tune.vllm.prefill import owner_name
from mla_tune.vllm.session.parts import Parts
from mla_tune.vllm.session.rules import Route

if TYPE_CHECKING:
    import torch

# Buffers that hold nothing from one run to the next, and are too large to copy.
SCRATCH = "workspace"


@dataclass(frozen=True)
class AppliedCheck:
    """One real pass of a plan, compared with what the plan says.

    Attributes:
        backend: its name, for messages.
        parts: layer, builder and impl.
        plan: the plan with all knobs of the backend set.
        route: how the plan divides the batch.
    """

    backend: str
    parts: Parts
    plan: Plan
    route: Route

    def run(self, metadata: Any, forward: Callable[[], None]) -> KernelResources | None:
        """Run ``forward`` once on ``metadata``, watching what really happens.

        Returns:
            What the decode kernel takes of the GPU, where that is known.

        Raises:
            PlanFailure: of kind ``not applied`` when the builder divided the batch otherwise,
                another value reached the kernel, or another prefill backend ran; of kind
                ``raised`` or ``out of memory`` when the pass failed.
        """
        self._check_route(metadata)
        rules = self.parts.rules
        with ExitStack() as stack:
            launched = {
                name: stack.enter_context(knob.observe())
                for name, knob in rules.kernel_knobs.items()
            }
            launcher = self.parts.launcher
            constants: list[Plan] = []
            resources: list[KernelResources] = []
            if launcher is not None:
                constants = stack.enter_context(launcher.observed())
                resources = stack.enter_context(launcher.resources())
            ran: list[Any] = []
            if getattr(metadata, "prefill", None) is not None:
                owner, method = prefills.owner_of(self.parts.impl, metadata)
                self._check_prefill(owner)
                ran = stack.enter_context(calls_of(owner, method))
            self._pass(forward)
        self._check_launches(launched)
        self._check_constants(constants)
        dense = rules.prefills_densely(self.route)
        if dense is not None and dense != bool(ran):
            taken = "ran" if ran else "did not run"
            raise self._not_applied(f"the prefill backend {taken}, against what the plan says")
        return reduce(KernelResources.most, resources) if resources else None

    def _pass(self, forward: Callable[[], None]) -> None:
        """Run ``forward`` to its end on the device."""
        import torch

        try:
            forward()
            if self.parts.device.type == "cuda":
                torch.cuda.synchronize(self.parts.device)
        except torch.OutOfMemoryError as error:
            kind = FailureKind.OUT_OF_MEMORY
            raise PlanFailure(str(error), plan=self.plan, kind=kind) from error
        except Exception as error:
            problem = f"{self.backend}: {type(error).__name__}: {error}"
            raise PlanFailure(problem, plan=self.plan) from error

    def _not_applied(self, problem: str) -> PlanFailure:
        remedy = "report it with the vLLM release"
        return PlanFailure(problem, plan=self.plan, kind=FailureKind.NOT_APPLIED, remedy=remedy)

    def _check_route(self, metadata: Any) -> None:
        """Compare how the builder divided the batch with what the plan was taken to mean."""
        decodes, decode_tokens = layers.divided(metadata)
        if decode_tokens is not None and decode_tokens != self.route.num_decode_tokens:
            threshold = self.plan.get("reorder_batch_threshold")
            raise self._not_applied(
                f"{decode_tokens} decode tokens in the builder's metadata, expected "
                f"{self.route.num_decode_tokens} with threshold {threshold} "
                f"(builder: {self.parts.builder.reorder_batch_threshold})",
            )
        if decodes is not None and decodes != self.route.num_decodes:
            raise self._not_applied(
                f"{decodes} decodes in the metadata, expected {self.route.num_decodes}"
            )

    def _check_launches(self, launched: Mapping[str, list[Any]]) -> None:
        wanted = self.parts.rules.reaches_kernel(self.plan, self.route.num_decode_tokens)
        for name, expected in wanted.items():
            if launched[name] != [expected]:
                raise self._not_applied(
                    f"kernel launches with {name} {launched[name]}, expected [{expected}]"
                )

    def _check_constants(self, launches: Sequence[Plan]) -> None:
        wanted = launch_of(self.plan)
        if not wanted or not self.route.num_decode_tokens:
            return
        seen = [Plan(**{k: launch[k] for k in wanted if k in launch}) for launch in launches]
        if seen != [wanted]:
            found = " and ".join(map(str, seen)) or "other kernels"
            raise self._not_applied(f"kernel launches with {found}, expected {wanted}")

    def _check_prefill(self, owner: Any) -> None:
        wanted = self.plan.text("prefill_backend")
        if wanted is None:
            return
        named = owner_name(owner)
        # FlashAttention's version is bound into the function that is called.
        bound = getattr(getattr(owner, "flash_attn_varlen_func", None), "keywords", {})
        version = bound.get("fa_version")
        if named != wanted or (version is not None and wanted != f"fa{version}"):
            raise self._not_applied(
                f"prefill backend {named} (FlashAttention version {version}), expected {wanted}",
            )


def detach(metadata: Any, builder: Any) -> None:
    """Give ``metadata`` copies of the tensors that ``builder`` fills again for the next batch.

    A schedule or a request index of one batch is overwritten by the next build, in vLLM as here;
    there each build is used before the next, here plans and their graphs run in any order.
    """
    import torch

    owned = {
        value.untyped_storage().data_ptr()
        for name, value in vars(builder).items()
        if isinstance(value, torch.Tensor) and SCRATCH not in name and value.numel()
    }
    for holder, name, tensor in list(_tensors(metadata, set())):
        if tensor.numel() and tensor.untyped_storage().data_ptr() in owned:
            setattr(holder, name, tensor.clone())


def _tensors(node: Any, seen: set[int]) -> Iterator[tuple[Any, str, "torch.Tensor"]]:
    """Every tensor field of the metadata's dataclasses, with who holds it."""
    import torch

    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from _tensors(item, seen)
    elif dataclasses.is_dataclass(node) and not isinstance(node, type):
        for name, value in list(vars(node).items()):
            if isinstance(value, torch.Tensor):
                yield node, name, value
            else:
                yield from _tensors(value, seen)


def scratch_values(tensor: "torch.Tensor") -> "torch.Tensor":
    """The bytes of ``tensor``, for filling."""
    import torch

    return tensor.view(torch.uint8)
