"""What the answers of a graph table are worth on an exhaustive recording of another process.

The answers are those that the plugin freezes into the graphs of an engine like the recorded one,
from the plugin's own lookups. Their worth is in the recording: paired rounds of every plan beside
the default.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mla_tune.errors import InputError
from mla_tune.measuring.recording import Recording, Track
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes import RequestGroup, Workload
from mla_tune.table import Entry, Speedup, Table
from mla_tune.table.matching import EngineFacts, differences
from mla_tune.tuning.decide import SLOWEST_CASE
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.speedups import speedup_of
from mla_tune.vllm.plugin.choice import Choice
from mla_tune.vllm.plugin.lookups import Lookups

Shares = tuple[float, ...]
Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Recorded:
    """The rounds of one captured size: a matrix of µs (rounds by KV lengths) for each plan."""

    track: Track

    @cached_property
    def rounds(self) -> dict[Plan, Matrix]:
        return {
            plan: np.asarray(rounds[:])
            for plan, rounds in self.track.rounds.items()
            if plan not in self.track.failures
        }

    @property
    def group(self) -> RequestGroup:
        """Requests and query length, at the first KV length."""
        return self.track.workload.cases[0].shape.groups[0]

    @property
    def kv_lens(self) -> tuple[int, ...]:
        return tuple(shape.max_kv_len for shape in self.track.workload.shapes)

    @property
    def uniform(self) -> Shares:
        """Every KV length as often as another."""
        return (1 / len(self.kv_lens),) * len(self.kv_lens)

    def log_gains(self, plan: Plan) -> Matrix:
        """Log of the default's latency over the plan's, rounds by KV lengths."""
        gains: Matrix = np.log(self.rounds[self.track.plans[0]]) - np.log(self.rounds[plan])
        return gains

    def gain(self, plan: Plan, shares: Shares) -> float:
        """Median gain over the default in expected latency, the KV lengths by ``shares``."""
        default, tried = (self.rounds[each] @ shares for each in (self.track.plans[0], plan))
        return float(np.exp(np.median(np.log(default) - np.log(tried))))

    def holds(self, plan: Plan) -> bool:
        """Whether the table's rule allows a plan: no KV length slower than within 1 %."""
        return bool(np.exp(np.median(self.log_gains(plan), axis=0)).min() >= SLOWEST_CASE)

    def best_allowed(self, shares: Shares) -> Plan:
        """The single plan that the rule allows, of the least expected latency."""
        allowed = [plan for plan in self.rounds if self.holds(plan)]
        return max(allowed, key=lambda plan: self.gain(plan, shares))

    def fastest(self, case: int) -> Plan:
        """The plan that is fastest at one KV length alone."""
        return max(self.rounds, key=lambda plan: float(np.median(self.log_gains(plan)[:, case])))


@dataclass(frozen=True)
class PointVerdict:
    """A table's answer at one captured size and KV length; 0.01 is 1 %.

    Attributes:
        speedup: of the answer over the default, from paired rounds.
        allowed: the best plan that the rule allows for the captured size.
        allowed_gain: its gain over the default at this length.
        fastest: the fastest plan at this length alone, and ``fastest_gain`` its gain.
    """

    kv_len: int
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
        points: one a KV length; empty where there is nothing to judge by.
        no_default: why the default did not run, so that nothing can be compared with it.
        uniform: over the KV lengths, each as often as another.
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


def judged(path: Path, recording: Recording) -> list[SizeVerdict]:
    """Every captured size of ``recording`` that is of what the table at ``path`` is for.

    Raises:
        InputError: not a graph table, nothing in the recording is what it is for, or the recording
            is not exhaustive.
    """
    table = Table.load(path)
    if table.header.engine.mode != "graph":
        raise InputError(f"{path} is a table for eager mode", valid="one for graph mode")
    lookups = Lookups(table, None)
    verdicts = []
    for recorded in map(_exhaustive, _alike(path, table, recording)):
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


def engine_facts(recording: Recording, track: Track) -> EngineFacts:
    """The engine that a recorded session stood for."""
    header = TableJob.of(recording.environment, track.setup, [], Path()).header
    engine = header.full_engine
    return EngineFacts(
        backend=header.backend,
        device_name=header.device.name,
        compute_capability=header.device.compute_capability,
        sm_count=header.device.sm_count,
        model=tuple(header.model.items()),
        kv_cache_dtype=header.kv_cache_dtype,
        quantization=header.quantization,
        block_size=engine.block_size,
        vllm=header.software.get("vllm", "none"),
        max_model_len=engine.max_model_len,
        max_cudagraph_capture_size=engine.max_cudagraph_capture_size or 0,
        packages=tuple(header.software.items()),
    )


def _exhaustive(track: Track) -> Recorded:
    """A track with all its plans, but for those that do not run."""
    lengths = {plan: len(track.rounds.get(plan, ())) for plan in track.plans}
    ran = {rounds for plan, rounds in lengths.items() if plan not in track.failures}
    if ran and (len(ran) > 1 or 0 in ran):
        raise InputError(
            f"the recording of {track.workload} is not exhaustive: rounds by plan are "
            f"{', '.join(f'{plan}: {rounds}' for plan, rounds in lengths.items())}",
            valid="equally many rounds of every plan that runs",
            remedy="record with --record FILE --record-rounds N",
        )
    return Recorded(track)


def _shares(table: Table, recorded: Recorded) -> Shares | None:
    """The recorded KV lengths by the weights of the entry for their captured size.

    An entry that says the default has no figures by KV length, and so no weights of its own. The
    captured sizes of one table share them (``graph: kv_lens`` of its shapes file).
    """
    own = _entry(table, recorded.group)
    if own is None:
        return None
    weights = {case.kv_len: case.weight for entry in (*table.entries, own) for case in entry.cases}
    lengths = {shape.max_kv_len for shape in Workload.parse(own.shape).shapes}
    if len(lengths) > 1 and not lengths <= set(weights):
        return None
    found = [weights.get(kv_len, 1.0) * (kv_len in lengths) for kv_len in recorded.kv_lens]
    return tuple(weight / sum(found) for weight in found) if sum(found) else None


def _entry(table: Table, group: RequestGroup) -> Entry | None:
    for entry in table.entries:
        found = Workload.parse(entry.shape).cases[0].shape.groups
        size = [(each.count, each.query_len) for each in found]
        if size == [(group.count, group.query_len)]:
            return entry
    return None


def _size_verdict(recorded: Recorded, answer: Choice, served: Shares | None) -> SizeVerdict:
    default = recorded.track.plans[0]
    if default in recorded.track.failures:
        return SizeVerdict(
            recorded.group, answer, no_default=recorded.track.failures[default][1].split("\n")[0]
        )
    plan = answer.plan or default
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


def _point_verdicts(recorded: Recorded, plan: Plan, allowed: Plan) -> Iterable[PointVerdict]:
    gains, of_allowed = recorded.log_gains(plan), recorded.log_gains(allowed)
    for case, kv_len in enumerate(recorded.kv_lens):
        fastest = recorded.fastest(case)
        yield PointVerdict(
            kv_len=kv_len,
            speedup=speedup_of(gains[:, case]),
            allowed=_named(recorded, allowed),
            allowed_gain=_median(of_allowed[:, case]),
            fastest=_named(recorded, fastest),
            fastest_gain=_median(recorded.log_gains(fastest)[:, case]),
        )


def _named(recorded: Recorded, plan: Plan) -> Plan:
    """A plan as tables name it: the default is the empty one."""
    return UNTUNED if plan == recorded.track.plans[0] else plan


def _median(log_gains: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return float(np.exp(np.median(log_gains)))
