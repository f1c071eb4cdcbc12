"""A captured size in an exhaustive recording: paired rounds of every plan beside the default."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mla_tune.errors import InputError
from mla_tune.measuring.recording import Recording, Track
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes import BatchShape, RequestGroup
from mla_tune.table.matching import EngineFacts
from mla_tune.tuning.decide import SLOWEST_CASE
from mla_tune.tuning.job import TableJob

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
    def default(self) -> Plan:
        """The default, with the values that it was measured with."""
        return self.track.plans[0]

    def named(self, plan: Plan) -> Plan:
        """A plan as tables name it: the default is the empty one."""
        return UNTUNED if plan == self.default else plan

    @property
    def group(self) -> RequestGroup:
        """Requests and query length, at the first KV length."""
        return self.track.workload.cases[0].shape.groups[0]

    @property
    def shapes(self) -> tuple[BatchShape, ...]:
        """The KV lengths, guards among them, and ragged batches."""
        return self.track.workload.shapes

    @property
    def longest(self) -> int:
        """The longest KV length that all requests have."""
        cases = self.track.workload.cases
        return max(case.shape.max_kv_len for case in cases if not case.is_ragged)

    @property
    def uniform(self) -> Shares:
        """Every case as often as another."""
        return (1 / len(self.shapes),) * len(self.shapes)

    def log_gains(self, plan: Plan) -> Matrix:
        """Log of the default's latency over the plan's, rounds by KV lengths."""
        gains: Matrix = np.log(self.rounds[self.default]) - np.log(self.rounds[plan])
        return gains

    def gain(self, plan: Plan, shares: Shares) -> float:
        """Median gain over the default in expected latency, the KV lengths by ``shares``."""
        default, tried = (self.rounds[each] @ shares for each in (self.default, plan))
        return float(np.exp(np.median(np.log(default) - np.log(tried))))

    def gains(self, plan: Plan) -> list[float]:
        """Median gain over the default, one a case."""
        return list(map(float, np.exp(np.median(self.log_gains(plan), axis=0))))

    def holds(self, plan: Plan) -> bool:
        """Whether the table's rule allows a plan: no KV length slower than within 1 %."""
        return min(self.gains(plan)) >= SLOWEST_CASE

    def best_allowed(self, shares: Shares) -> Plan:
        """The single plan that the rule allows, of the least expected latency."""
        allowed = [plan for plan in self.rounds if self.holds(plan)]
        return max(allowed, key=lambda plan: self.gain(plan, shares))

    def fastest(self, case: int) -> Plan:
        """The plan that is fastest at one KV length alone."""
        return max(self.rounds, key=lambda plan: self.gains(plan)[case])


def exhaustive(track: Track) -> Recorded:
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
