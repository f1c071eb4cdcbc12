"""What a recording says.

It is JSON lines, plain or as gzip members. Each line holds for those that follow, until the next
of its kind:

    {"recording": 3, "environment": {...}}        what `Environment` holds; once a run, the same
    {"section": {...}}                            the fields of `Setup`: one a table
    {"workload": KEY, "weights": [...], "plans": [...]}   `measured_key`; the default first
    {"race": [{"plan": {...}, "rounds": [[case, ...], ...]}, ...]}  latencies in microseconds
    {"plan": {...}, "failure": {"kind": K, "what": W}}

A section or a workload that stands there already goes on where it was. Formats:

    1  a line for each plan of a race, {"plan": {...}, "rounds": [...]}, which a kill could part
    2  a line a race
    3  null for a case that a round left out
"""

__all__ = ["FORMAT", "Recording", "Track"]

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import starmap
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from mla_tune.environment import Environment
from mla_tune.errors import InputError
from mla_tune.files.regular_file import open_regular
from mla_tune.measuring.recording.rounds import Rounds
from mla_tune.measuring.recording.stream import LineStream
from mla_tune.plan.failure import FailureKind
from mla_tune.plan.plan import Plan
from mla_tune.session import Setup
from mla_tune.shapes import Case, Workload
from mla_tune.shapes.sections import KV_CACHE_DTYPES, MODES

FORMAT = 3

MOST_BYTES = 320 << 20
"""What a recording may take in memory: a thousand samples of each of 16,000 shapes fit."""

# Roughly what is held for one of each.
_SAMPLE_BYTES, _PLAN_BYTES, _TRACK_BYTES, _LINE_BYTES = 8, 200, 2000, 300

_MOST_NAME = 64
_MOST_NUMBER = 10**9
_MOST_WEIGHT = 2**63

_Facts = TypeVar("_Facts", Environment, Setup)
_ENVIRONMENT, _SETUP = TypeAdapter(Environment), TypeAdapter(Setup)


@dataclass
class Track:
    """One recorded workload: its plans, their rounds, and the failures."""

    setup: Setup
    workload: Workload
    plans: tuple[Plan, ...]
    rounds: dict[Plan, Sequence[tuple[float, ...]]] = field(default_factory=dict)
    failures: dict[Plan, tuple[FailureKind, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Recording:
    """All tracks of a file, in the order they were begun.

    ``notices`` says what was left out, one line each.
    """

    path: Path
    environment: Environment
    tracks: tuple[Track, ...]
    notices: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path) -> "Recording":
        """Read a recording, up to where it was cut off.

        Raises:
            InputError: missing or not a recording; names the line.
        """
        with open_regular(path, what="recording") as file:
            try:
                lines = LineStream(file)
            except OSError as error:
                raise InputError(f"recording {path} cannot be read: {error}") from None
            recording = cls.read(path, lines)
        if not recording.tracks:
            raise InputError(f"{path} holds no recording", valid="a file written with --record")
        return recording

    @classmethod
    def read(cls, path: Path, lines: LineStream) -> "Recording":
        """Read the ``lines`` of ``path``; without tracks where a run ended before its first.

        Raises:
            InputError: not a recording; names the line.
        """
        reader = _Reader()
        try:
            for line in lines:
                reader.take(line)
        except InputError as error:
            what = f"{path}:{reader.number}: {error.what}"
            raise InputError(what, valid=error.valid, remedy=error.remedy) from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise _no_line(path, reader.number, f"{type(error).__name__}: {error}") from None
        except RecursionError:
            raise _no_line(path, reader.number, "brackets within brackets") from None
        except OSError as error:
            raise InputError(f"recording {path} cannot be read: {error}") from None
        if reader.environment is None:
            raise InputError(f"{path} holds no recording", valid="a file written with --record")
        torn = f"{path}: cut off after line {reader.number}; what a kill has torn is left out"
        notices = (torn,) if lines.is_torn else ()
        return cls(path, reader.environment, tuple(reader.tracks.values()), notices)


def _no_line(path: Path, number: int, problem: str) -> InputError:
    return InputError(
        f"{path}:{max(number, 1)}: not a line of a recording: {problem:.300}",
        valid="a file written with --record",
    )


class _Reader:
    """Takes in a recording line by line; ``number`` counts them."""

    def __init__(self) -> None:
        self.number = 0
        self._head = b""
        self.environment: Environment | None = None
        self.tracks: dict[tuple[Setup, str], Track] = {}
        self._setup: Setup | None = None
        self._track: Track | None = None
        self._plans: frozenset[Plan] = frozenset()
        self._bytes = 0

    def take(self, text: bytes) -> None:
        """Take in one line.

        Raises:
            InputError, ValueError, KeyError, TypeError, AttributeError, RecursionError: no line
                of a recording, or one that contradicts an earlier line.
        """
        self.number += 1
        self._hold(_LINE_BYTES)
        if text == self._head:  # another run that went on
            self._setup = self._track = None
            return
        line = json.loads(text)
        if "recording" in line:
            self._begin(line)
            self._head = text
        elif "section" in line:
            self._setup, self._track = _setup(line["section"]), None
        elif "workload" in line:
            self._track = self._turn_to(line)
        elif self._track is None:
            raise ValueError("no workload stands before it")
        elif "failure" in line:
            failure = _failure(line["failure"]["kind"], line["failure"]["what"])
            self._hold(len(failure[1]))
            self._track.failures[self._known(line["plan"])] = failure
        else:
            for result in line.get("race", [line]):
                self._add(self._track, self._known(result["plan"]), result["rounds"])

    def _begin(self, line: Mapping[str, Any]) -> None:
        if type(line["recording"]) is not int or not 1 <= line["recording"] <= FORMAT:
            raise InputError(
                f"recording of format {line['recording']!r:.40}",
                valid=f"1 to {FORMAT}",
                remedy="upgrade mla-tune",
            )
        environment = _facts(_ENVIRONMENT, line["environment"])
        int(environment.capability[0])
        if self.environment is not None and self.environment != environment:
            raise ValueError("another environment than at the start")
        self.environment, self._setup, self._track = environment, None, None

    def _turn_to(self, line: Mapping[str, Any]) -> Track:
        if self._setup is None:
            raise ValueError("no section stands before it")
        shapes = Workload.parse_measured(line["workload"]).shapes
        weights = [_weight(weight) for weight in line["weights"]]
        workload = Workload(tuple(starmap(Case, zip(shapes, weights, strict=True))))
        if workload.measured_key != line["workload"]:
            raise ValueError("weights that make other cases guards")
        plans = tuple(map(_plan, line["plans"]))
        self._plans = frozenset(plans)
        if not plans or len(self._plans) < len(plans):
            raise ValueError("no plans, or one that stands twice")
        self._hold(_TRACK_BYTES + _PLAN_BYTES * len(plans))
        key = (self._setup, workload.measured_key)
        earlier = self.tracks.get(key, Track(self._setup, workload, plans))
        track = Track(self._setup, workload, plans, earlier.rounds, earlier.failures)
        self.tracks[key] = track
        return track

    def _add(self, track: Track, plan: Plan, rounds: Any) -> None:
        num_cases = len(track.workload.cases)
        self._hold(_SAMPLE_BYTES * len(rounds) * num_cases)
        kept = track.rounds.setdefault(plan, Rounds(num_cases))
        assert isinstance(kept, Rounds)
        kept.extend(rounds)
        # What has run since is no failure: it had a second try.
        track.failures.pop(plan, None)

    def _known(self, knobs: Any) -> Plan:
        plan = _plan(knobs)
        if plan not in self._plans:
            raise ValueError(f"{plan} is no plan of the workload")
        return plan

    def _hold(self, num_bytes: int) -> None:
        self._bytes += num_bytes
        if self._bytes > MOST_BYTES:
            raise ValueError(f"too much to hold in {MOST_BYTES >> 20} MiB")


def _facts(kind: TypeAdapter[_Facts], given: Any) -> _Facts:
    """A dataclass of facts from plain data, all of it plausible.

    Raises:
        ValueError: a field that is missing, unknown, of another type, or out of all bounds.
    """
    # In strict mode a dataclass is only read from JSON.
    facts = kind.validate_json(json.dumps(given), strict=True)
    unknown = set(given) - set(asdict(facts))
    if unknown:
        raise ValueError(f"unknown: {sorted(map(str, unknown))!r:.80}")
    for value in _leaves(asdict(facts)):
        if isinstance(value, str) and not (value.isprintable() and len(value) <= _MOST_NAME):
            raise ValueError(f"{value!r:.80} is no name")
        if isinstance(value, int | float) and not 0 <= value <= _MOST_NUMBER:
            raise ValueError(f"{value!r:.80} is out of bounds")
    return facts


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    else:
        yield value


def _setup(section: Any) -> Setup:
    setup = _facts(_SETUP, section)
    for value, valid in ((setup.mode, MODES), (setup.kv_cache_dtype, KV_CACHE_DTYPES)):
        if value not in valid:
            raise ValueError(f"{value!r} is none of {', '.join(valid)}")
    return setup


def _plan(knobs: Any) -> Plan:
    plan = Plan.from_dict(knobs)
    for value in plan.values():
        if isinstance(value, int) and abs(value) > _MOST_NUMBER:
            raise ValueError(f"a knob of {value!r:.80}")
        if isinstance(value, str) and not (value.isprintable() and len(value) <= _MOST_NAME):
            raise ValueError(f"a knob of {value!r:.80}")
    return plan


def _weight(weight: Any) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise ValueError(f"a weight of {weight!r:.80}")
    if weight != 0 and (not 1e-6 <= weight <= _MOST_WEIGHT or not math.isfinite(weight)):
        raise ValueError(f"a weight of {weight!r:.80}")
    return float(weight)


def _failure(kind: Any, what: Any) -> tuple[FailureKind, str]:
    if kind not in list(FailureKind) or not isinstance(what, str):
        raise ValueError(f"a failure of kind {kind!r:.80}")
    return FailureKind(kind), what
