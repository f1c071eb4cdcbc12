"""What the answers of a graph table are worth on an exhaustive recording of another process.

The answers are those that the plugin freezes into the graphs of an engine like the recorded one,
from the plugin's own lookups. Their worth is in the recording: paired rounds of every plan beside
the default.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mla_tune.errors import InputError
from mla_tune.measuring.recording import Recording, Track
from mla_tune.plan.plan import Plan
from mla_tune.shapes import BatchShape, RequestGroup, Workload
from mla_tune.table import Entry, Speedup, Table
from mla_tune.table.matching import EngineFacts, differences
from mla_tune.tuning.decide import SLOWEST_CASE
from mla_tune.tuning.speedups import speedup_of
from mla_tune.vllm.plugin.choice import Choice
from mla_tune.vllm.plugin.lookups import Lookups
from recorded_size import Recorded, Shares, engine_facts, exhaustive


@dataclass(frozen=True)
class PointVerdict:
    """A table's answer for one batch shape of a captured size; 0.01 is 1 %.

    Attributes:
        speedup: of the answer over the default, from paired rounds.
        allowed: the best plan that the rule allows for the captured size.
        allowed_gain: its gain over the default for this shape.
        fastest: the fastest plan for this shape alone, and ``fastest_gain`` its gain.
    """

    shape: BatchShape
    speedup: Speedup
    allowed: Plan
    allowed_gain: float
    fastest: Plan
    fastest_gain: float

    @property
    def holds(self) -> bool:
        return self.speedup.median >= SLOWEST_CASE

    @property
    def regret(self) -> float:
        """Latency over that of the best allowed plan, less one; below zero where it is faster."""
        return self.allowed_gain / self.speedup.median - 1

    @property
    def regret_alone(self) -> float:
        """Latency over that of the fastest plan at this length, less one."""
        return self.fastest_gain / self.speedup.median - 1


@dataclass(frozen=True)
class Weighted:
    """Gains over the default in expected latency, and what the best allowed plan is ahead."""

    gain: float
    allowed: Plan
    allowed_gain: float

    @property
    def regret(self) -> float:
        return self.allowed_gain / self.gain - 1


@dataclass(frozen=True)
class SizeVerdict:
    """A table's answer for one captured size.

    Attributes:
        plan: what the engine runs; empty for the default. ``answer`` says how it was found.
        points: one a KV length or ragged batch; empty where there is nothing to judge by.
        no_default: why the default did not run, so that nothing can be compared with it.
        uniform: over the points, each as often as another.
        served: by the weights of the table's entry; None where it has none for these lengths.
    """

    group: RequestGroup
    answer: Choice
    points: tuple[PointVerdict, ...] = ()
    uniform: Weighted | None = None
    served: Weighted | None = None
    no_default: str = ""

    @property
    def plan(self) -> Plan:
        return self.answer.plan

    @property
    def is_unknown(self) -> bool:
        """Whether the answer is a plan that the recording does not have."""
        return not self.points and not self.no_default


def judged(path: Path, recording: Recording, *, unguarded: bool = False) -> list[SizeVerdict]:
    """Every captured size of ``recording`` that is of what the table at ``path`` is for.

    The engine serves each size up to the longest KV length that was recorded for it. An entry that
    was not measured so far, or on ragged batches, is left alone there unless ``unguarded``.

    Raises:
        InputError: not a graph table, nothing in the recording is what it is for, or the recording
            is not exhaustive.
    """
    table = Table.load(path)
    if table.header.engine.mode != "graph":
        raise InputError(f"{path} is a table for eager mode", valid="one for graph mode")
    sizes = list(map(exhaustive, _alike(path, table, recording)))
    reach = {size.group.count: size.longest for size in sizes}
    lookups = Lookups(table, None, reach=reach.__getitem__, unguarded=unguarded)
    verdicts = []
    for recorded in sizes:
        group = recorded.group
        answer = lookups.captured(group.count, group.query_len)
        verdicts.append(_size_verdict(recorded, answer, _shares(table, recorded)))
    return sorted(verdicts, key=lambda size: (size.group.query_len, size.group.count))


def _alike(path: Path, table: Table, recording: Recording) -> list[Track]:
    """The recorded graphs of the engine that ``table`` is for."""
    differing = [
        (_differences(table, engine_facts(recording, track)), track)
        for track in recording.tracks
        if track.setup.mode == "graph"
    ]
    alike = [track for fields, track in differing if not fields]
    if alike:
        return alike
    nearest = min((fields for fields, _ in differing), key=len, default=())
    told = ", ".join(f"{name} {own} and not {theirs}" for name, theirs, own in nearest)
    raise InputError(
        f"{recording.path} has no graph of what {path} is for: "
        + (f"its nearest has {told}" if told else "it holds eager mode alone"),
        valid="a recording of the same GPU, backend, heads, release and max_model_len",
    )


def _differences(table: Table, facts: EngineFacts) -> Sequence[tuple[str, Any, Any]]:
    length = table.header.engine.max_model_len
    found = differences(table, facts)
    # Another one freezes another default.
    if length != facts.max_model_len:
        found.append(("max_model_len", length, facts.max_model_len))
    return found


def _shares(table: Table, recorded: Recorded) -> Shares | None:
    """The recorded cases by the weights of the entry for their captured size.

    An entry that says the default has no figures by KV length, and so no weights of its own. The
    captured sizes of one table share them (``graph: kv_lens`` of its shapes file).
    """
    own = _entry(table, recorded.group)
    if own is None:
        return None
    weights: dict[str | int, float] = {
        case.shape or case.kv_len: case.weight
        for entry in (*table.entries, own)
        for case in entry.cases
    }
    listed = [shape.max_kv_len for shape in Workload.parse(own.shape).shapes]
    if len(listed) == 1:
        weights[listed[0]] = 1.0
    if not set(listed) <= set(weights):
        return None
    found = []
    for case in recorded.track.workload.cases:
        kv_len = case.shape.max_kv_len
        name = str(case.shape) if case.is_ragged else kv_len
        is_weighed = case.is_ragged or kv_len in listed
        found.append(weights.get(name, 0.0) if is_weighed else 0.0)
    return tuple(weight / sum(found) for weight in found) if sum(found) else None


def _entry(table: Table, group: RequestGroup) -> Entry | None:
    for entry in table.entries:
        found = Workload.parse(entry.shape).cases[0].shape.groups
        size = [(each.count, each.query_len) for each in found]
        if size == [(group.count, group.query_len)]:
            return entry
    return None


def _size_verdict(recorded: Recorded, answer: Choice, served: Shares | None) -> SizeVerdict:
    if recorded.default in recorded.track.failures:
        why = recorded.track.failures[recorded.default][1]
        return SizeVerdict(recorded.group, answer, no_default=why.split("\n")[0])
    plan = answer.plan or recorded.default
    if plan not in recorded.rounds:
        return SizeVerdict(recorded.group, answer)
    uniform = _weighted(recorded, plan, recorded.uniform)
    by_table = None if served is None else _weighted(recorded, plan, served)
    allowed = (by_table or uniform).allowed
    points = _point_verdicts(recorded, plan, allowed)
    return SizeVerdict(recorded.group, answer, tuple(points), uniform, by_table)


def _weighted(recorded: Recorded, plan: Plan, shares: Shares) -> Weighted:
    allowed = recorded.best_allowed(shares)
    return Weighted(recorded.gain(plan, shares), allowed, recorded.gain(allowed, shares))


def _point_verdicts(recorded: Recorded, plan: Plan, allowed: Plan) -> Iterator[PointVerdict]:
    log_gains, of_allowed = recorded.log_gains(plan), recorded.gains(allowed)
    for case, shape in enumerate(recorded.shapes):
        fastest = recorded.fastest(case)
        yield PointVerdict(
            shape=shape,
            speedup=speedup_of(log_gains[:, case]),
            allowed=recorded.named(allowed),
            allowed_gain=of_allowed[case],
            fastest=recorded.named(fastest),
            fastest_gain=recorded.gains(fastest)[case],
        )
