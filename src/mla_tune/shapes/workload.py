"""Workloads: the batch shapes that share one plan, and one entry of a table."""

__all__ = ["Case", "Workload"]

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from mla_tune.errors import InputError
from mla_tune.shapes.batch import BatchShape, format_size

if TYPE_CHECKING:
    # It is a part of a table's entry and brings pydantic, which the command's help does without.
    from mla_tune.shapes.served_reach import ServedReach

_MANY_LENGTHS = re.compile(r"(\d*q\d+k?s)\{([\dk,]+)\}", re.ASCII)
_GUARDS = re.compile(r"\{([\dk,]+)\}", re.ASCII)


@dataclass(frozen=True)
class Case:
    """A batch shape and how often it is served, relative to the other cases of its workload.

    One of weight 0 is a *guard*: no plan is chosen for it, and none that makes it slower.
    """

    shape: BatchShape
    weight: float = 1.0

    @property
    def is_guard(self) -> bool:
        return self.weight == 0

    @property
    def is_ragged(self) -> bool:
        """Whether its requests differ in length."""
        return len(self.shape.groups) > 1

    @property
    def _rank(self) -> int:
        """Where it stands in a workload: listed uniform cases, guards, ragged ones."""
        return 2 if self.is_ragged else int(self.is_guard)


@dataclass(frozen=True)
class Workload:
    """What one plan is chosen for: the key of a table entry.

    In eager mode that is one batch shape. A CUDA graph freezes its split count for every batch of
    its size. Its workload is therefore one batch size and query length with all KV lengths served
    at that size, and its cases share one plan. Beside these *listed* ones it may hold guards, and
    ragged batches of that size.

    The cases stand in the order listed, guards, ragged. `of` brings them into it.

    Attributes:
        cases: batches of one size.
        served: where a record of served steps bounds the guards: how far; None where they go as
            far as the engine does.
    """

    cases: tuple[Case, ...]
    served: "ServedReach | None" = None

    def __post_init__(self) -> None:
        if len(self.cases) == 1 and self.cases[0].weight > 0:
            return  # as nearly all are that a table's keys stand for
        if len({self._family(case.shape) for case in self.cases}) != 1:
            raise ValueError("the cases of a workload differ in more than their KV length")
        if len(self.cases) > 1 and self.cases[0]._rank > 0:
            raise ValueError("no uniform case of the workload has a weight")
        if not self.weight > 0:
            raise ValueError("no case of the workload has a weight")
        ranks = [case._rank for case in self.cases]
        if ranks != sorted(ranks):
            raise ValueError("the order of a workload's cases is listed, guards, ragged")

    @staticmethod
    def _family(shape: BatchShape) -> tuple[tuple[int, int], ...]:
        if shape.is_uniform:
            return ((shape.max_query_len, shape.num_requests),)
        return tuple((group.query_len, group.count) for group in shape.groups)

    @classmethod
    def of(cls, cases: Iterable[Case]) -> "Workload":
        """The workload of ``cases``, whatever their order; ascending by their longest request.

        Raises:
            ValueError: they are no workload.
        """
        return cls(tuple(sorted(cases, key=lambda case: (case._rank, case.shape.max_kv_len))))

    @property
    def shapes(self) -> tuple[BatchShape, ...]:
        return tuple([case.shape for case in self.cases])

    @property
    def listed(self) -> tuple[Case, ...]:
        """The cases that the key of its table entry names."""
        return tuple(case for case in self.cases if case._rank == 0) or self.cases

    @property
    def weight(self) -> float:
        return sum(case.weight for case in self.cases)

    def shares(self) -> list[float]:
        """The weight of each case as a share of the workload, summing to one."""
        return [case.weight / self.weight for case in self.cases]

    @property
    def holds_to(self) -> int | None:
        """The longest KV length of its uniform cases, if there are guards among them."""
        uniform = [case for case in self.cases if not case.is_ragged]
        if not any(case.is_guard for case in uniform):
            return None
        return max(case.shape.max_kv_len for case in uniform)

    @property
    def holds_ragged(self) -> bool:
        """Whether there are ragged batches beside the uniform ones of a graph."""
        return len(self.cases) > 1 and any(case.is_ragged for case in self.cases)

    def __str__(self) -> str:
        listed = self.listed
        if len(listed) == 1:
            return str(listed[0].shape)
        group = listed[0].shape.groups[0]
        count = str(group.count) if group.count > 1 else ""
        return f"{count}q{format_size(group.query_len)}s{_lengths(listed)}"

    @property
    def rows(self) -> int:
        """Query tokens of its largest batch: the rows that a decode kernel works on."""
        return max(shape.num_query_tokens for shape in self.shapes)

    @property
    def measured_key(self) -> str:
        """What is measured, for journals and recordings: guards and ragged cases as well.

        ``32q1s{1k,4k}+{64k,128k}+20q1s1k_12q1s9k``; without any of these the table's key.
        """
        others = self.cases[len(self.listed) :]
        guards = [case for case in others if not case.is_ragged]
        ragged = [str(case.shape) for case in others if case.is_ragged]
        return "+".join([str(self), *([_lengths(guards)] if guards else []), *ragged])

    @classmethod
    def parse(cls, text: str) -> "Workload":
        """Read a table's key: a batch spec, or one with KV lengths in braces, ``32q1s{512,1k}``.

        The weights are not part of a key, so every case gets the same.

        Raises:
            InputError: not a key that `str` of a workload could have given.
        """
        return _parsed(text)

    @classmethod
    def parse_measured(cls, text: str) -> "Workload":
        """Read a `measured_key`. Guards get a weight of 0, all other cases the same.

        Raises:
            InputError: not a key that `measured_key` could have given.
        """
        listed, *others = text.split("+")
        cases = list(cls.parse(listed).cases)
        if others and (guards := _GUARDS.fullmatch(others[0])):
            group = cases[0].shape.groups[0]
            prefix = f"{group.count}q{group.query_len}s"
            lengths = guards[1].split(",")
            cases += [Case(BatchShape.parse(prefix + length), 0.0) for length in lengths]
            del others[0]
        cases += [Case(BatchShape.parse(spec)) for spec in others]
        try:
            workload = cls(tuple(cases))
        except ValueError as error:
            raise InputError(f"shape {text!r}: {error}") from None
        return _canonical(workload, workload.measured_key, text)

    @classmethod
    def eager(cls, cases: Iterable[Case]) -> list["Workload"]:
        """One workload a shape: in eager mode a lookup sees the real lengths of each step."""
        return [cls((case,)) for case in cases]

    @classmethod
    def graph(cls, cases: Iterable[Case]) -> list["Workload"]:
        """One workload per captured (batch size, query length), over its KV lengths.

        Only uniform decode shapes are captured; the caller leaves out the others.
        """
        families: dict[tuple[tuple[int, int], ...], list[Case]] = {}
        for case in cases:
            families.setdefault(cls._family(case.shape), []).append(case)
        return [cls.of(family) for family in families.values()]


@lru_cache(maxsize=8192)
def _parsed(text: str) -> Workload:
    """A table's keys are read when they are checked, and again for its index."""
    match = _MANY_LENGTHS.fullmatch(text)
    if match is None:
        shape = BatchShape.parse(text)
        return _canonical(Workload((Case(shape),)), str(shape), text)
    specs = [match[1] + kv_len for kv_len in match[2].split(",")]
    workload = Workload(tuple(Case(BatchShape.parse(spec)) for spec in specs))
    return _canonical(workload, str(workload), text)


def _lengths(cases: Sequence[Case]) -> str:
    return "{" + ",".join(format_size(case.shape.max_kv_len) for case in cases) + "}"


def _canonical(workload: Workload, key: str, text: str) -> Workload:
    if key != text:
        raise InputError(f"shape {text!r} is not in its canonical form", valid=repr(key))
    return workload
