"""Recordings: every sample of a run in a file, and a bench that plays them back, noise included.

A recording is JSON lines (gzip when the name ends in ``.gz``). Each line holds for those that
follow, until the next of its kind:

    {"recording": 1, "environment": {...}}        once: what `Environment` holds
    {"section": {...}}                            the fields of `Setup`: one a table
    {"workload": KEY, "weights": [...], "plans": [...]}   plans: the default first
    {"plan": {...}, "rounds": [[case, ...], ...]} latencies in microseconds; may repeat
    {"plan": {...}, "failure": {"kind": K, "what": W}}
"""

__all__ = ["RecordedBench", "Recorder", "Recording", "Track"]

import gzip
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO, cast

from mla_tune.backends.interface import Setup
from mla_tune.bench import Bench
from mla_tune.environment import Environment
from mla_tune.errors import EnvironmentFailure, InputError, PlanFailure
from mla_tune.knobs import Plan, PlanSpace
from mla_tune.measure import Samples
from mla_tune.shapes import BatchShape, Case, MlaDimensions, Workload

FORMAT = 1


@dataclass
class Track:
    """One recorded workload: its plans, their rounds, and the failures."""

    setup: Setup
    workload: Workload
    plans: tuple[Plan, ...]
    rounds: dict[Plan, list[tuple[float, ...]]] = field(default_factory=dict)
    failures: dict[Plan, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Recording:
    """All tracks of a file, in the order they were taken."""

    environment: Environment
    tracks: tuple[Track, ...]

    @classmethod
    def load(cls, path: Path) -> "Recording":
        """Read a recording.

        Raises:
            InputError: missing or not a recording; names the line.
        """
        environment: Environment | None = None
        setup: Setup | None = None
        tracks: list[Track] = []
        read = 0
        try:
            for line in _lines(path):
                read += 1
                if "recording" in line:
                    environment = _environment(path, line)
                elif "section" in line:
                    setup = _setup(line["section"])
                elif "workload" in line:
                    tracks.append(_track(cast("Setup", setup), line))
                else:
                    _add_plan(tracks[-1], line)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            problem = f"{type(error).__name__}: {error}"
            raise InputError(
                f"{path}:{max(read, 1)}: not a line of a recording: {problem}",
                valid="a file written with --record",
            ) from None
        if environment is None or not tracks:
            raise InputError(f"{path} holds no recording", valid="a file written with --record")
        return cls(environment, tuple(tracks))


def _opened(path: Path, mode: str) -> TextIO:
    return cast("TextIO", gzip.open(path, mode) if path.suffix == ".gz" else path.open(mode))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with _opened(path, "rt") as file:
            yield from map(json.loads, file)
    except FileNotFoundError:
        raise InputError(f"recording {path} does not exist", remedy="check the path") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"recording {path} cannot be read: {error}") from None


def _environment(path: Path, line: dict[str, Any]) -> Environment:
    if line["recording"] != FORMAT:
        raise InputError(
            f"{path}: recording of format {line['recording']}",
            valid=str(FORMAT),
            remedy="upgrade mla-tune",
        )
    return Environment(**line["environment"])


def _setup(section: dict[str, Any]) -> Setup:
    return Setup(**(section | {"model": MlaDimensions(**section["model"])}))


def _track(setup: Setup, line: dict[str, Any]) -> Track:
    shapes = [case.shape for case in Workload.parse(line["workload"]).cases]
    cases = tuple(
        Case(shape, weight) for shape, weight in zip(shapes, line["weights"], strict=True)
    )
    return Track(setup, Workload(cases), tuple(map(Plan.from_dict, line["plans"])))


def _add_plan(track: Track, line: dict[str, Any]) -> None:
    plan = Plan.from_dict(line["plan"])
    if "failure" in line:
        track.failures[plan] = (line["failure"]["kind"], line["failure"]["what"])
        return
    rounds = [tuple(map(float, cases)) for cases in line["rounds"]]
    track.rounds.setdefault(plan, []).extend(rounds)


class Recorder:
    """A bench that writes down everything another one measures.

    Args:
        bench: what measures.
        path: the file; compressed when it ends in ``.gz``.
        every_plan_rounds: if above zero, race all plans of each workload for so many rounds when
            it is loaded, and write down these alone: side by side, and no plan screened out, as
            a comparison of search policies needs them.

    Raises:
        EnvironmentFailure: the file cannot be written.
    """

    def __init__(self, bench: Bench, path: Path, every_plan_rounds: int = 0) -> None:
        self.environment = bench.environment
        self._bench = bench
        self._every_plan_rounds = every_plan_rounds
        try:
            self._file = _opened(path, "wt")
        except OSError as error:
            raise EnvironmentFailure(f"recording {path} cannot be written: {error}") from None
        self._write({"recording": FORMAT, "environment": bench.environment.as_dict()})

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._file.flush()

    def open(self, setup: Setup) -> None:
        """As the bench's own."""
        self._bench.open(setup)
        self._write({"section": asdict(setup)})

    def plan_space(self, shapes: Sequence[BatchShape]) -> PlanSpace:
        """As the bench's own."""
        return self._bench.plan_space(shapes)

    def load(self, workload: Workload) -> None:
        """As the bench's own."""
        self._bench.load(workload)
        plans = self._bench.plan_space(workload.shapes).plans
        self._write(
            {
                "workload": str(workload),
                "weights": [case.weight for case in workload.cases],
                "plans": [plan.as_dict() for plan in plans],
            }
        )
        if self._every_plan_rounds:
            self._race_all(list(plans))

    def _race_all(self, plans: list[Plan]) -> None:
        """Race all plans that work, taking out the ones that turn out not to."""
        while plans:
            try:
                self._written(plans, self._every_plan_rounds, 0)
            except PlanFailure as failure:
                blamed = [plan for plan in plans if plan == failure.plan]
                if not blamed:
                    raise
                plans.remove(blamed[0])
            else:
                return

    def race(self, plans: Sequence[Plan], rounds: int, seed: int) -> dict[Plan, Samples]:
        """As the bench's own."""
        if self._every_plan_rounds:
            return self._bench.race(plans, rounds, seed)
        return self._written(plans, rounds, seed)

    def _written(self, plans: Sequence[Plan], rounds: int, seed: int) -> dict[Plan, Samples]:
        try:
            taken = self._bench.race(plans, rounds, seed)
        except PlanFailure as failure:
            if isinstance(failure.plan, Plan):
                content = {"kind": failure.kind, "what": failure.what}
                self._write({"plan": failure.plan.as_dict(), "failure": content})
            raise
        for plan, samples in taken.items():
            rows = [[round(latency, 3) for latency in cases] for cases in samples.rounds]
            self._write({"plan": plan.as_dict(), "rounds": rows})
        return taken

    def verify(self, plan: Plan) -> None:
        """As the bench's own."""
        self._bench.verify(plan)

    def close(self) -> None:
        """Close the file and the bench."""
        self._file.close()
        self._bench.close()


class RecordedBench:
    """A bench that draws from recorded rounds instead of measuring.

    Plans recorded side by side are drawn side by side: round i of one comes with round i of the
    others, so that drift common to them stays common. ``seed`` makes runs differ.
    """

    def __init__(self, recording: Recording, seed: int = 0) -> None:
        self.environment = recording.environment
        self.rounds_spent = 0
        self._tracks = {(track.setup, str(track.workload)): track for track in recording.tracks}
        self._setup: Setup | None = None
        self._track: Track | None = None
        self._draw = random.Random(seed)

    def open(self, setup: Setup) -> None:
        """Turn to one section of the recording."""
        self._setup = setup

    def _find(self, key: str) -> Track:
        assert self._setup is not None, "open() comes first"
        return self._tracks[self._setup, key]

    def plan_space(self, shapes: Sequence[BatchShape]) -> PlanSpace:
        """The recorded plans."""
        track = self._find(str(Workload(tuple(map(Case, shapes)))))
        return PlanSpace(track.plans, len(track.plans))

    def load(self, workload: Workload) -> None:
        """Turn to one track."""
        self._track = self._find(str(workload))

    def race(self, plans: Sequence[Plan], rounds: int, seed: int) -> dict[Plan, Samples]:
        """Draw ``rounds`` of each plan, the same position for all."""
        del seed  # the recording's own draw makes two races differ
        track = self._track
        assert track is not None, "load() comes first"
        for plan in plans:
            if plan in track.failures or not track.rounds.get(plan):
                kind, what = track.failures.get(plan, ("raised", "not recorded"))
                failure = PlanFailure(what, kind=kind)
                failure.plan = plan
                raise failure
        self.rounds_spent += rounds * len(plans)
        positions = [self._draw.random() for _ in range(rounds)]
        return {plan: _drawn(track.rounds[plan], positions) for plan in plans}

    def verify(self, plan: Plan) -> None:
        """Pass: what a recording says of a plan is its latency, or its failure in `race`."""

    def close(self) -> None:
        """Nothing is held."""


def _drawn(recorded: Sequence[tuple[float, ...]], positions: Sequence[float]) -> Samples:
    return Samples(tuple(recorded[int(position * len(recorded))] for position in positions))
