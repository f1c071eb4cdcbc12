"""The session that drives the real `MLAAttention.forward_impl` of the installed vLLM."""

__all__ = ["PreparedVllm", "VllmSession"]

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from mla_tune.plan.compilation import NOTHING_COMPILED, Compilation
from mla_tune.plan.failure import FailureKind, PlanFailure
from mla_tune.plan.kernel_resources import KernelResources
from mla_tune.plan.launch import LAUNCH_KNOBS, launch_of
from mla_tune.plan.plan import Plan
from mla_tune.plan.space import PlanSpace
from mla_tune.quantization import UNQUANTIZED
from mla_tune.session import Reference, Setup
from mla_tune.shapes import BatchShape
from mla_tune.vllm import compat, workspace
from mla_tune.vllm.compat import layers, prefills
from mla_tune.vllm.observe import arguments_of, set_for_now
from mla_tune.vllm.prefill import PLANS_EACH_STEP
from mla_tune.vllm.session.ahead import AheadCompiler
from mla_tune.vllm.session.applied import AppliedCheck, detach, scratch_values
from mla_tune.vllm.session.config import current_config
from mla_tune.vllm.session.expected import expected_output
from mla_tune.vllm.session.inputs import Batch, LatentCache, blocks_needed, make_batch
from mla_tune.vllm.session.parts import Parts
from mla_tune.vllm.session.rules import Route, SessionRules
from mla_tune.vllm.triton_compile import KernelCall, recorded
from mla_tune.vllm.triton_launch import KERNEL_MODULE

if TYPE_CHECKING:
    import torch


class VllmSession:
    """One real layer with its builder, cache and inputs, reused for every plan and shape.

    Args:
        setup: what the parts were built for.
        parts: layer, builder and what was found out about them.
        compiler: compiles its kernels, and is closed with the session; None for a new one.
    """

    def __init__(self, setup: Setup, parts: Parts, compiler: AheadCompiler | None = None) -> None:
        import torch

        self.setup = setup
        self.parts = parts
        self.device = parts.device
        self.rules: SessionRules = parts.rules
        self._generator = torch.Generator(device=self.device).manual_seed(0)
        self._cache: LatentCache | None = None
        self._batches: dict[BatchShape, Batch] = {}
        # Held until the next load: captured graphs read their metadata and never own it.
        self._prepared: dict[tuple[BatchShape, Plan], PreparedVllm] = {}
        self._compiler = compiler or AheadCompiler()
        self._compiles = parts.launcher is not None and self.device.type == "cuda"

    @property
    def block_size(self) -> int:
        return self.parts.block_size

    @property
    def cache(self) -> LatentCache:
        if self._cache is None:
            raise RuntimeError("no shapes are loaded")
        return self._cache

    def plan_space(self, shapes: Sequence[BatchShape]) -> PlanSpace:
        return self.rules.plan_space(shapes)

    def load(self, shapes: Sequence[BatchShape]) -> None:
        """One cache large enough for the largest shape; each shape pages through all of it."""
        self._prepared.clear()
        self._batches.clear()
        blocks = 1 + max(blocks_needed(shape, self.block_size) for shape in shapes)
        if self._cache is None or self._cache.blocks.shape[0] < blocks:
            self._cache = None
            self._cache = self._filled_cache(blocks)
        topk = self.setup.index_topk if self.parts.sparse else None
        for shape in shapes:
            self._batches[shape] = make_batch(
                shape, self._cache, self.setup.max_model_len, topk, self.parts.dtype
            )

    def _filled_cache(self, blocks: int) -> LatentCache:
        parts, setup = self.parts, self.setup
        dtype_name = parts.layer.kv_cache_dtype
        cache = LatentCache(
            blocks, parts.block_size, setup.model, dtype_name, parts.dtype, self.device
        )

        def store(
            kv_c: "torch.Tensor", k_pe: "torch.Tensor", to: "torch.Tensor", slots: "torch.Tensor"
        ) -> None:
            parts.impl.do_kv_cache_update(kv_c, k_pe, to, slots, dtype_name, parts.layer._k_scale)

        cache.fill(store, self._generator, parts.dtype)
        return cache

    def queries(self, shape: BatchShape) -> "torch.Tensor":
        return self._batches[shape].query

    def poison_scratch(self) -> None:
        """Fill vLLM's workspaces with bytes of ones: NaN in every float format in use."""
        for tensor in workspace.scratch_tensors(self.parts.builder, self.parts.impl):
            scratch_values(tensor).fill_(0xFF)

    def prepare(self, shape: BatchShape, plan: Plan) -> "PreparedVllm":
        key = (shape, plan)
        if key not in self._prepared:
            full = self._full(shape, plan)
            self._prepared[key] = PreparedVllm(self, shape, self._batches[shape], full)
        return self._prepared[key]

    def compile(
        self, plans: Sequence[Plan], limit_s: float, tell: Callable[[Plan], None]
    ) -> Compilation:
        if not self._compiles:
            return NOTHING_COMPILED
        self._compiler.start()
        return self._compiler.compile({p: self._launched(p) for p in plans}, limit_s, tell)

    def _launched(self, plan: Plan) -> tuple[KernelCall, ...]:
        """What ``plan`` launches for the loaded shapes.

        Nothing where it is refused: who measures it is told why. Kernels are compiled alike for
        batches of as many tokens, whatever their lengths.
        """
        shapes = {shape.num_query_tokens: shape for shape in self._batches}.values()
        with recorded(compat.module(KERNEL_MODULE)) as calls:
            for shape in shapes:
                with suppress(Exception):
                    full = self._full(shape, plan)
                    PreparedVllm(self, shape, self._batches[shape], full).rehearse()
        return tuple(dict.fromkeys(calls))

    def _full(self, shape: BatchShape, plan: Plan) -> Plan:
        """Fill in the default's knobs, after checking that those set are this backend's."""
        default = self.rules.domain([shape]).default
        launchable = LAUNCH_KNOBS if self.parts.launcher is not None else ()
        for knob, value in plan.items():
            if knob not in default and knob not in launchable:
                problem = f"{self.setup.backend} has no knob {knob} here"
                raise PlanFailure(problem, plan=plan, kind=FailureKind.NOT_APPLIED)
            offered = self.rules.prefill_backends
            if knob == "prefill_backend" and value not in offered:
                problem = f"prefill backend {value!r} does not run here"
                if value in PLANS_EACH_STEP:
                    problem = f"prefill backend {value!r} is not tuned: {PLANS_EACH_STEP[value]}"
                raise PlanFailure(
                    problem, plan=plan, kind=FailureKind.NOT_APPLIED, valid=", ".join(offered)
                )
        return plan.over(default)

    def fp8_tokens(self, shape: BatchShape, plan: Plan) -> int:
        if not self.parts.fp8_queries:
            return 0
        route = self.rules.route(shape, plan)
        # A sparse backend sends prefill tokens through the same kernel, unless it up-projects.
        if self.parts.sparse and self.rules.prefills_densely(route) is False:
            return shape.num_query_tokens
        return route.num_decode_tokens

    def projected_from(self, shape: BatchShape, plan: Plan) -> int:
        route = self.rules.route(shape, plan)
        if self.setup.quantization == UNQUANTIZED or not self.rules.prefills_densely(route):
            return shape.num_query_tokens
        return route.num_decode_tokens

    def reference(
        self, shape: BatchShape, fp8_tokens: int = 0, projected_from: int | None = None
    ) -> Reference:
        first = shape.num_query_tokens if projected_from is None else projected_from
        batch = self._batches[shape]
        return expected_output(
            *(self.setup, self.parts, batch, self.cache),
            fp8_tokens=fp8_tokens,
            projected_from=first,
        )

    def close(self) -> None:
        self._prepared.clear()
        self._batches.clear()
        self._cache = None
        self._compiler.close()
        workspace.stop_workspace()
        # Layer, builder and config refer to each other.
        self.__dict__.pop("parts", None)
        gc.collect()
        if self.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()


class PreparedVllm:
    """One plan for one batch: metadata built under the plan's knobs, and kept.

    The metadata owns its tensors: those that vLLM's builder reuses from step to step are copied,
    so that plans can be replayed in any order.
    """

    def __init__(self, session: VllmSession, shape: BatchShape, batch: Batch, plan: Plan) -> None:
        self.output = batch.output
        self.plan = plan
        self.resources: KernelResources | None = None
        self.route: Route = session.rules.route(shape, plan)
        self._session = session
        self._batch = batch
        self._checked = False
        try:
            with self._knobs():
                self.metadata = self._build()
        except Exception as error:
            problem = f"{session.setup.backend} refuses it: {type(error).__name__}: {error}"
            raise PlanFailure(problem, plan=plan) from error

    def _build(self) -> Any:
        """Build as vLLM does: in graph mode as for a capture, then as for the step replayed."""
        import torch

        session, batch = self._session, self._batch
        builder = session.parts.builder
        real = int(batch.kv_lens.max())
        with torch.no_grad():
            if session.setup.mode == "graph":
                longest = session.setup.max_model_len
                metadata = builder.build_for_cudagraph_capture(batch.metadata(longest))
                # Schedules are made anew at every step, from the real lengths, into buffers that
                # the graph reads: building again leaves exactly that in them.
                builder.build(0, batch.metadata(real))
            else:
                metadata = builder.build(0, batch.metadata(real))
        detach(metadata, builder)
        for _, knob, value in session.rules.kernel_settings(self.plan):
            knob.stamp(metadata, value)
        return metadata

    @contextmanager
    def _knobs(self) -> Iterator[None]:
        """Set the plan's knobs on builder and impl, and restore what was there."""
        session, plan = self._session, self.plan
        parts = session.parts
        with ExitStack() as stack:
            stack.enter_context(current_config(parts.vllm_config))
            if "reorder_batch_threshold" in plan:
                threshold = plan["reorder_batch_threshold"]
                stack.enter_context(
                    set_for_now(parts.builder, "reorder_batch_threshold", threshold)
                )
            for _, knob, value in session.rules.kernel_settings(plan):
                stack.enter_context(knob.set(value))
            if parts.launcher is not None:
                stack.enter_context(parts.launcher.launching(launch_of(plan)))
            instance = parts.prefill_instances.get(plan.text("prefill_backend") or "")
            stack.enter_context(prefills.using(parts.builder, instance))
            if self._batch.topk is not None:
                stack.enter_context(
                    set_for_now(parts.impl, "topk_indices_buffer", self._batch.topk)
                )
            yield

    @contextmanager
    def applied(self) -> Iterator[Callable[[], None]]:
        """Set the knobs, check once with a real pass that they act, and yield the pass.

        The pass that checks also compiles what is to be compiled and lets FLASHMLA schedule: its
        schedule is made by the first of a step's many layers, and the others are what counts.

        Raises:
            PlanFailure: the check found another path, launch or prefill backend; or the pass
                failed.
        """
        with self._knobs():
            prefills.refresh(self._session.parts.builder, self.metadata)
            if not self._checked:
                self.resources = self._applied_check.run(self.metadata, self.forward)
                self._checked = True
            yield self.forward

    def rehearse(self) -> None:
        """Run the layer once under the knobs, whatever reaches the kernel."""
        with self._knobs():
            prefills.refresh(self._session.parts.builder, self.metadata)
            self.forward()

    @property
    def _applied_check(self) -> AppliedCheck:
        session = self._session
        return AppliedCheck(session.setup.backend, session.parts, self.plan, self.route)

    def forward(self) -> None:
        """Run the layer once. The knobs must be set."""
        import torch

        batch, parts = self._batch, self._session.parts
        with torch.no_grad():
            if batch.topk is not None:
                layers.announce_topk(parts.impl)
            parts.layer.forward_impl(
                batch.query,
                batch.kv_c,
                batch.k_pe,
                self._session.cache.blocks,
                self.metadata,
                output=batch.output,
            )

    @contextmanager
    def decode_kernel(self, *, joined_query: bool = False) -> Iterator[Callable[[], Any]]:
        """Yield ``impl.forward_mqa`` alone, on the arguments that the layer hands it.

        This is the scope that vLLM's own attention benchmark times. The layer hands the query's
        two parts over apart, and FLASHMLA joins them inside; ``joined_query`` joins them
        beforehand, as that benchmark does for FLASHMLA.
        """
        import torch

        impl = self._session.parts.impl
        with self.applied() as run, arguments_of(impl, "forward_mqa") as calls:
            run()
        if not calls:
            problem = "no token of this batch takes the decode path"
            raise PlanFailure(problem, plan=self.plan, kind=FailureKind.NOT_APPLIED)
        args, kwargs = calls[0]
        if joined_query and isinstance(args[0], tuple):
            args = (torch.cat(args[0], dim=-1), *args[1:])
        with self.applied():
            yield lambda: impl.forward_mqa(*args, **kwargs)
