"""What single plans took, from recordings and from studies alike."""

__all__ = ["Failed", "Latency", "Source", "Tried", "recorded", "studied"]

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from mla_tune.errors import MlaTuneError
from mla_tune.measuring.recording.content import Recording, Track
from mla_tune.plan.plan import Plan
from mla_tune.report.figure import Facets, Setting, facets, model_text
from mla_tune.shapes import BatchShape, Workload
from mla_tune.tuning.study.folder import StudyFolder
from mla_tune.tuning.study.journal import ANEW
from mla_tune.tuning.study.outcome import outcome_of


@dataclass(frozen=True)
class Latency:
    """Microseconds: the median of samples and its 95 % interval, by their order."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Latency":
        """Of at least one sample. Below six the interval is all of them, and less than 95 %."""
        ordered = sorted(samples)
        place = max(int(stats.binom.ppf(0.025, len(ordered), 0.5)) - 1, 0)
        middle = len(ordered) // 2
        median = (ordered[middle] + ordered[-middle - 1]) / 2
        return cls(median, ordered[place], ordered[-1 - place])

    def __str__(self) -> str:
        return f"{self.median:.1f} ({self.low:.1f}–{self.high:.1f})"


@dataclass(frozen=True)
class Tried:
    """The plans of one batch shape.

    Attributes:
        setting: what its latencies are of.
        workload: the key of the workload that the shape is a case of.
        shape: the batch.
        default: the first plan.
        winner: the fastest over the whole workload, by the medians.
        latencies: of each plan that ran on this shape.
    """

    setting: Setting
    workload: str
    shape: BatchShape
    default: Plan
    winner: Plan
    latencies: Mapping[Plan, Latency]


@dataclass(frozen=True)
class Failed:
    """A plan that has no latency, and why."""

    of: Facets
    workload: str
    plan: str
    why: str


@dataclass(frozen=True)
class Source:
    """What one recording or one study folder says."""

    tried: Sequence[Tried]
    failed: Sequence[Failed]
    notices: Sequence[str] = ()


def recorded(path: Path) -> Source:
    """Read a recording.

    Raises:
        InputError: it is none.
    """
    recording = Recording.load(path)
    tried: list[Tried] = []
    failed: list[Failed] = []
    for track in recording.tracks:
        setting = _of_track(recording, track)
        key = str(track.workload)
        tried += _tried(setting, track.workload, track.plans[0], track.rounds)
        failed += [
            Failed(setting.of, key, str(plan) or "default", f"{kind}: {what}")
            for plan, (kind, what) in track.failures.items()
        ]
    return Source(tried, failed, recording.notices)


def _of_track(recording: Recording, track: Track) -> Setting:
    setup, environment = track.setup, recording.environment
    of = facets(
        environment.device_name,
        setup.backend,
        setup.model.num_q_heads,
        setup.mode,
        setup.kv_cache_dtype,
    )
    model = model_text(dataclasses.asdict(setup.model))
    return Setting(of, environment.software.get("vllm", ""), model)


def studied(folder: Path) -> Source:
    """Read the journals of a study folder, which runs may be writing.

    Raises:
        InputError: there is no such folder.
    """
    studies = StudyFolder(folder)
    tried: list[Tried] = []
    failed: list[Failed] = []
    notices: list[str] = []
    for storage in studies.storages():
        for study in storage.get_all_studies():
            if ANEW in study.user_attrs:
                continue  # measured anew since
            trials = storage.get_all_trials(storage.get_study_id_from_name(study.study_name))
            try:
                more = _of_study(study.user_attrs, trials)
            except (MlaTuneError, KeyError, TypeError, ValueError) as error:
                notices.append(f"study {study.study_name}: left out, {error}")
                continue
            tried += more.tried
            failed += more.failed
    return Source(tried, failed, [*studies.notices.values(), *notices])


def _of_study(facts: Mapping[str, Any], trials: Sequence[Any]) -> Source:
    of = facets(
        facts["device"], facts["backend"], facts["heads"], facts["mode"], facts["KV cache dtype"]
    )
    versions = (version.partition(" ") for version in facts["software"].split(", "))
    software = {name: version for name, _, version in versions}
    setting = Setting(of, software.get("vllm", ""), facts["model"])
    workload = Workload.parse_measured(facts["shape"])
    outcomes = [outcome for trial in trials if (outcome := outcome_of(trial)) is not None]
    rounds = {each.plan: each.rounds for each in outcomes if each.latency_us and each.rounds}
    failed = [
        Failed(of, str(workload), str(each.plan) or "default", each.dropped)
        for each in outcomes
        if each.latency_us is None and each.dropped
    ]
    default = outcomes[0].plan if outcomes else Plan()
    return Source(list(_tried(setting, workload, default, rounds)), failed)


def _tried(
    setting: Setting,
    workload: Workload,
    default: Plan,
    rounds: Mapping[Plan, Sequence[Sequence[float]]],
) -> Iterator[Tried]:
    """One for each batch shape that has samples."""
    by_case: list[dict[Plan, Latency]] = [{} for _ in workload.cases]
    totals: dict[Plan, float] = {}
    for plan, taken in rounds.items():
        total = 0.0
        for number, (latencies, case) in enumerate(zip(by_case, workload.cases, strict=True)):
            samples = [
                row[number] for row in taken if number < len(row) and math.isfinite(row[number])
            ]
            if samples:
                latencies[plan] = Latency.of(samples)
                total += case.weight * latencies[plan].median
            elif case.weight:
                total = math.inf
        totals[plan] = total
    if not totals:
        return
    winner = min(totals, key=totals.__getitem__)
    for latencies, case in zip(by_case, workload.cases, strict=True):
        if latencies:
            yield Tried(setting, str(workload), case.shape, default, winner, latencies)
