"""From the trials of a table job to the model in its table; see `mla_tune.table.between`."""

__all__ = ["Trials", "between"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mla_tune.plan.cut import CUTTERS, Cutter
from mla_tune.plan.plan import Plan
from mla_tune.shapes import RequestGroup, Workload
from mla_tune.shapes.buckets import bucket_end, bucket_start
from mla_tune.table import Header
from mla_tune.table.between import Between, Longer
from mla_tune.table.longer import PREFILL, Extend
from mla_tune.tuning.launches import has_own_launch
from mla_tune.tuning.longer_fit import LongerPoint, longer
from mla_tune.tuning.study import Outcome
from mla_tune.tuning.wave_fit import Point, proven

KNOB, THRESHOLD = "num_kv_splits", "reorder_batch_threshold"


@dataclass(frozen=True)
class Trials:
    """What was tried for one workload, and the plan that stands for the backend untuned."""

    workload: Workload
    default: Plan
    outcomes: Sequence[Outcome]

    @property
    def point(self) -> Point | None:
        """Latencies by the knob's value; None where the workload is no single-token batch.

        Only those of vLLM's own launch: the model knows the tiles of no other. A plan that was
        screened out counts as the others do: its three samples tell its latency to
        a percent or two, and the fit weighs it by how far behind the best it is.
        """
        group, default = _single_token(self.workload), _value(self.default)
        latency_us = {
            value: outcome.latency_us
            for outcome in self._own_launch
            if (value := _value(outcome.plan)) is not None and outcome.latency_us is not None
        }
        if group is None or default not in latency_us or len(latency_us) < 2:
            return None
        assert default is not None
        return Point(group.count, group.kv_len, default, latency_us)

    @property
    def longer(self) -> LongerPoint | None:
        """Latencies of both paths; None where the workload is no uniform batch of longer queries.

        Without a value of the split knob the kernel has its own, which is 0.
        """
        group, own = _one_group(self.workload), self.default.number(THRESHOLD)
        if group is None or group.query_len == 1 or own is None:
            return None
        latency_us: dict[int, float] = {}
        for outcome in self._own_launch:
            value = _path(outcome.plan, group.query_len)
            if value is not None and outcome.latency_us is not None:
                latency_us[value] = outcome.latency_us
        default = _path(self.default, group.query_len)
        if default is None or default not in latency_us:
            return None
        return LongerPoint(Extend(group.count, group.query_len, group.kv_len), default, latency_us)

    @property
    def _own_launch(self) -> list[Outcome]:
        return [o for o in self.outcomes if has_own_launch(o.plan, self.default)]


def between(
    trials: Sequence[Trials],
    header: Header,
    cut: str,
    gate: float,
    default_at: Callable[[int], Plan | None],
) -> Between | None:
    """Fit and prove a model; None where there are too few points for a proof.

    Args:
        trials: of all workloads of the table.
        header: of the table.
        cut: the backend's rule, a key of `CUTTERS`.
        gate: the gain that a plan must have.
        default_at: the plan for the backend untuned at a KV length; None where it is not known.
    """
    points = [point for each in trials if (point := each.point) is not None]
    defaults = {point.kv_len: point.default for point in points}
    if any(defaults[point.kv_len] != point.default for point in points):
        return None  # it depends on the number of requests too
    cutter = CUTTERS[cut](header.device.sm_count, header.model["num_q_heads"])
    found = proven(points, cutter, gate)
    if found is None:
        return None
    model, proof = found
    if "launch" not in model.model.microseconds:
        return None  # noise alone: nothing is computed in no time
    return Between(
        knob="num_kv_splits",
        cut=cut,
        occupancy=model.model.occupancy,
        us=dict(model.model.microseconds),
        gate=gate,
        error=model.error.share,
        error_us=model.error.us,
        points=len(points),
        regret=proof.regret,
        worst_regret=proof.worst_regret,
        values=dict(model.values),
        defaults=_ends_of_runs(_probed(defaults, default_at)),
        smallest=model.smallest,
        largest=tuple(model.largest),
        longer=_longer(trials, cutter),
    )


def _longer(trials: Sequence[Trials], cutter: Cutter) -> Longer | None:
    """The same for longer queries, where the backend has a threshold, everywhere the same."""
    points = [point for each in trials if (point := each.longer) is not None]
    own = {each.default.number(THRESHOLD) for each in trials if each.longer is not None}
    threshold = own.pop() if len(own) == 1 else None
    return None if threshold is None else longer(points, cutter, threshold)


def _probed(known: dict[int, int], default_at: Callable[[int], Plan | None]) -> dict[int, int]:
    """Defaults by KV length, ascending: the ``known`` ones, and those in between.

    At both ends of each eighth of an octave, which is where lookups ask.
    """
    defaults = dict(known)
    start, last = min(known), max(known)
    while start <= last:
        end = bucket_end(bucket_start(start))
        for kv_len in (start, min(end, last)):
            plan = None if kv_len in defaults else default_at(kv_len)
            value = None if plan is None else _value(plan)
            if value is not None:
                defaults[kv_len] = value
        start = end + 1
    return dict(sorted(defaults.items()))


def _ends_of_runs(defaults: dict[int, int]) -> dict[int, int]:
    """Only the first and the last length of each stretch with one default."""
    lengths = list(defaults)
    kept = {}
    for place, kv_len in enumerate(lengths):
        around = lengths[max(0, place - 1) : place + 2]
        is_inside = len(around) == 3 and len({defaults[length] for length in around}) == 1
        if not is_inside:
            kept[kv_len] = defaults[kv_len]
    return kept


def _one_group(workload: Workload) -> RequestGroup | None:
    groups = [group for case in workload.cases for group in case.shape.groups]
    return groups[0] if len(groups) == 1 else None


def _single_token(workload: Workload) -> RequestGroup | None:
    group = _one_group(workload)
    return group if group is not None and group.query_len == 1 else None


def _path(plan: Plan, query_len: int) -> int | None:
    """What a plan with a threshold, and no knob but the splits beside it, makes of a query."""
    threshold = plan.number(THRESHOLD)
    if threshold is None or not {THRESHOLD, KNOB}.issuperset(plan):
        return None
    return plan.number(KNOB) or 0 if query_len <= threshold else PREFILL


def _value(plan: Plan) -> int | None:
    """The knob's value, if the plan sets that one alone."""
    return plan.number(KNOB) if list(plan) == [KNOB] else None
