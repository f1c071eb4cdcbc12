"""Which plans a backend has for a batch, and what a plan comes down to."""

__all__ = ["Route", "SessionRules", "route"]

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.plan.space import KnobDomain, PlanSpace, effective_plans
from mla_tune.shapes import BatchShape
from mla_tune.vllm.session.kernel_knob import KernelKnob

# Attending over the latents costs 4.5 times the work of attending over keys and values, so long
# queries never win there; vLLM's largest default threshold is 1024.
LONGEST_DECODE_QUERY = 1024


@dataclass(frozen=True)
class Route:
    """How a batch is divided: requests and tokens that take the decode path, the rest prefill."""

    num_decodes: int
    num_decode_tokens: int
    num_prefill_tokens: int
    longest_prefill: int
    """The longest KV length among the prefills, 0 when there are none."""


def route(shape: BatchShape, threshold: int, *, uniform: bool) -> Route:
    """Divide as vLLM's ``split_decodes_and_prefills`` does.

    Args:
        threshold: the longest query on the decode path.
        uniform: whether only leading requests of one common query length decode together.
    """
    requests = shape.requests()
    first_len = requests[0][0]
    decodes: list[int] = []
    if first_len <= threshold:
        for query_len, _ in requests:
            if query_len != first_len if uniform else query_len > threshold:
                break
            decodes.append(query_len)
    prefills = requests[len(decodes) :]
    return Route(
        num_decodes=len(decodes),
        num_decode_tokens=sum(decodes),
        num_prefill_tokens=sum(q for q, _ in prefills),
        longest_prefill=max((kv_len for _, kv_len in prefills), default=0),
    )


@dataclass(frozen=True)
class SessionRules:
    """What the plans of one session depend on, found in the layer and builder as built.

    Attributes:
        mode: ``eager`` or ``graph``.
        threshold: the builder's own ``reorder_batch_threshold``.
        has_threshold: whether it is a knob; backends of single-token decode fix it at 1.
        uniform: see `route`.
        prefill_backends: the offered ones, the default first; empty where there is no choice.
        kernel_knobs: those that reach the decode kernel, by name.
        launches: those of the decode kernel to try, vLLM's own first; none: its own alone.
        topk: for sparse backends, how many tokens a query attends to.
        sparse_prefill: for sparse backends, see `mla_tune.vllm.compat.sparse_prefill_path`.
        sparse_split: for sparse backends, whether the kernel treats decode and prefill tokens
            apart even when all take the sparse path.
    """

    mode: str
    threshold: int
    has_threshold: bool
    uniform: bool
    prefill_backends: tuple[str, ...]
    kernel_knobs: Mapping[str, KernelKnob[Any]] = field(default_factory=dict)
    launches: tuple[Plan, ...] = ()
    topk: int | None = None
    sparse_prefill: str = "mha"
    sparse_split: bool = False

    def route(self, shape: BatchShape, plan: Plan) -> Route:
        threshold = plan.number("reorder_batch_threshold") or self.threshold
        return route(shape, threshold, uniform=self.uniform)

    def domain(self, shapes: Sequence[BatchShape]) -> KnobDomain:
        """All values to try for ``shapes``, and what vLLM does untuned.

        Raises:
            ValueError: eager shapes with different defaults cannot share a domain.
        """
        for name, knob in self.kernel_knobs.items():
            if len({knob.default([shape]) for shape in shapes}) > 1:
                raise ValueError(f"shapes with different defaults of {name} share no plan space")
        default: dict[str, int | str] = {}
        tried: dict[str, Sequence[int | str]] = {}
        if self.has_threshold:
            default["reorder_batch_threshold"] = self._default_threshold(shapes)
            tried["reorder_batch_threshold"] = self._thresholds(shapes)
        for name, knob in self.kernel_knobs.items():
            default[name] = knob.default(shapes)
            tried[name] = knob.values(shapes)
        if self.prefill_backends:
            default["prefill_backend"] = self.prefill_backends[0]
            tried["prefill_backend"] = self.prefill_backends
        return KnobDomain(Plan(**default), tried)

    def _default_threshold(self, shapes: Sequence[BatchShape]) -> int:
        if self.mode == "graph":
            # Only decode is captured; speculative decoding raises the threshold to cover it.
            return max(self.threshold, *(shape.max_query_len for shape in shapes))
        return self.threshold

    def _thresholds(self, shapes: Sequence[BatchShape]) -> list[int]:
        if self.mode == "graph":
            return []
        lens = {query_len for shape in shapes for query_len in shape.query_lens}
        return [length for length in sorted(lens | {1}) if length <= LONGEST_DECODE_QUERY]

    def plan_space(self, shapes: Sequence[BatchShape]) -> PlanSpace:
        """The effective plans, without those whose workspace the kernel could not address.

        Those with vLLM's own launch come first, then the same with each of the others.
        """
        domain = self.domain(shapes)
        space = effective_plans(domain, shapes, self.execution)
        kept = [plan for plan in space.plans[1:] if self._fits(plan.over(domain.default), shapes)]
        own = (space.default, *kept)
        decoding = [plan for plan in own if self._decodes(plan.over(domain.default), shapes)]
        others = [plan.having(**launch) for launch in self.launches[1:] for plan in decoding]
        return PlanSpace(
            (*own, *others),
            space.assignments * max(1, len(self.launches)),
            domain.default.over(self.launches[0] if self.launches else UNTUNED),
        )

    def _decodes(self, plan: Plan, shapes: Sequence[BatchShape]) -> bool:
        """Whether the decode kernel is launched at all."""
        return any(self.route(shape, plan).num_decode_tokens for shape in shapes)

    def _fits(self, plan: Plan, shapes: Sequence[BatchShape]) -> bool:
        tokens = max(self.route(shape, plan).num_decode_tokens for shape in shapes)
        return all(knob.admits(value, tokens) for _, knob, value in self.kernel_settings(plan))

    def kernel_settings(self, plan: Plan) -> list[tuple[str, KernelKnob[Any], int | str]]:
        """The knobs of the decode kernel that ``plan`` sets: name, knob and value of each."""
        return [(n, knob, plan[n]) for n, knob in self.kernel_knobs.items() if n in plan]

    def reaches_kernel(self, plan: Plan, decode_tokens: int) -> dict[str, int | str]:
        """What the decode kernel must be launched with; nothing for a batch without decodes."""
        if not decode_tokens:
            return {}
        return {
            name: knob.expected(value, decode_tokens)
            for name, knob, value in self.kernel_settings(plan)
        }

    def execution(self, shape: BatchShape, plan: Plan) -> Hashable:
        """What a plan comes down to; plans with equal descriptions are one."""
        taken = self.route(shape, plan)
        if self.topk is not None:
            return self._sparse_execution(taken, plan)
        launched = tuple(self.reaches_kernel(plan, taken.num_decode_tokens).items())
        prefill = plan.get("prefill_backend") if taken.num_prefill_tokens else None
        return taken.num_decode_tokens, launched, prefill

    def prefills_densely(self, taken: Route) -> bool | None:
        """Whether the prefill tokens take the up-projecting path; None when vLLM may do either."""
        if not taken.num_prefill_tokens:
            return False
        if self.topk is None:
            return True
        if self.sparse_prefill == "either" and taken.longest_prefill > self.topk:
            return None
        return self.sparse_prefill != "mqa" and taken.longest_prefill <= self.topk

    def _sparse_execution(self, taken: Route, plan: Plan) -> Hashable:
        launched = tuple(self.reaches_kernel(plan, taken.num_decode_tokens).items())
        if self.prefills_densely(taken) is False:
            return (taken.num_decode_tokens if self.sparse_split else None, launched, None)
        return taken.num_decode_tokens, launched, plan.get("prefill_backend")
