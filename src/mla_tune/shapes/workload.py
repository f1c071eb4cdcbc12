"""Workloads: the batch shapes that share one plan, and one entry of a table."""

__all__ = ["Case", "Workload"]

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mla_tune.errors import InputError
from mla_tune.shapes.batch import BatchShape, format_size

_MANY_LENGTHS = re.compile(r"(\d*q\d+k?s)\{([\dk,]+)\}", re.ASCII)


@dataclass(frozen=True)
class Case:
    """A batch shape and how often it is served, relative to the other cases of its workload."""

    shape: BatchShape
    weight: float = 1.0


@dataclass(frozen=True)
class Workload:
    """What one plan is chosen for: the key of a table entry.

    In eager mode that is one batch shape. A CUDA graph freezes its split count for every batch of
    its size. Its workload is therefore one batch size and query length with all KV lengths served
    at that size, and its cases share one plan.
    """

    cases: tuple[Case, ...]

    def __post_init__(self) -> None:
        if len({self._family(case.shape) for case in self.cases}) != 1:
            raise ValueError("the cases of a workload differ in more than their KV length")

    @staticmethod
    def _family(shape: BatchShape) -> tuple[tuple[int, int], ...]:
        return tuple((group.query_len, group.count) for group in shape.groups)

    @property
    def shapes(self) -> tuple[BatchShape, ...]:
        return tuple(case.shape for case in self.cases)

    @property
    def weight(self) -> float:
        return sum(case.weight for case in self.cases)

    def shares(self) -> list[float]:
        """The weight of each case as a share of the workload, summing to one."""
        return [case.weight / self.weight for case in self.cases]

    def __str__(self) -> str:
        if len(self.cases) == 1:
            return str(self.cases[0].shape)
        group = self.cases[0].shape.groups[0]
        lens = ",".join(format_size(case.shape.max_kv_len) for case in self.cases)
        count = str(group.count) if group.count > 1 else ""
        return f"{count}q{format_size(group.query_len)}s{{{lens}}}"

    @classmethod
    def parse(cls, text: str) -> "Workload":
        """Read a table's key: a batch spec, or one with KV lengths in braces, ``32q1s{512,1k}``.

        The weights are not part of a key, so every case gets the same.

        Raises:
            InputError: not a key that `str` of a workload could have given.
        """
        match = _MANY_LENGTHS.fullmatch(text)
        specs = [match[1] + kv_len for kv_len in match[2].split(",")] if match else [text]
        workload = cls(tuple(Case(BatchShape.parse(spec)) for spec in specs))
        if str(workload) != text:
            raise InputError(
                f"shape {text!r} is not in its canonical form", valid=repr(str(workload))
            )
        return workload

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
        return [
            cls(tuple(sorted(family, key=lambda case: case.shape.max_kv_len)))
            for family in families.values()
        ]
