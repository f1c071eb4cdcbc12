"""Which backend to run: backends beside each other on one ground, shape by shape and in all."""

__all__ = ["Contender", "Contest", "Standing", "contests"]

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mla_tune.catalogue.found import FoundTable
from mla_tune.catalogue.ground import Ground
from mla_tune.catalogue.points import Point, common_points
from mla_tune.catalogue.timing import Ratio
from mla_tune.shapes import format_size


@dataclass(frozen=True)
class Contender:
    """One backend with its table. Its name holds what tells it from the others of its contest."""

    name: str
    table: FoundTable

    @property
    def backend(self) -> str:
        return self.table.file.header.backend

    @property
    def vllm(self) -> str | None:
        return self.table.file.header.software.get("vllm")


@dataclass(frozen=True)
class Standing:
    """What choosing one backend for all shapes comes to, over shapes that all of them have.

    Attributes:
        us: time of all shapes, each as often as its weight says.
        default_us: the same untuned; None where a default could not be measured.
        loss: ``us`` over the time with the fastest backend for each shape. Its interval is of
            the shapes at which another one is the fastest.
        worst: the largest factor by which it is behind on one shape.
        worst_shape: where that is.
    """

    us: float
    default_us: float | None
    loss: Ratio
    worst: Ratio
    worst_shape: str

    def over(self, other: "Standing") -> Ratio:
        """How many times as long choosing this one takes as choosing ``other``, the fastest."""
        value = self.us / other.us
        if self.loss.low is None:
            return Ratio(value)
        off = (self.loss.value - self.loss.low) / self.loss.value
        return Ratio(value, value * (1 - off), value * (1 + off))


@dataclass(frozen=True)
class Contest:
    """Backends on one ground.

    Attributes:
        contenders: in the order of the tables given.
        points: shapes that two or more of them have.
        differing: shapes whose entries are of different cases, and are not compared.
    """

    ground: Ground
    contenders: tuple[Contender, ...]
    points: tuple[Point, ...]
    differing: tuple[str, ...] = ()

    @cached_property
    def complete(self) -> list[Point]:
        """The points at which every contender has something to run."""
        return [point for point in self.points if len(point.served) == len(self.contenders)]

    @cached_property
    def standings(self) -> list[Standing]:
        """One a contender, in their order; nothing where they have no shape in common."""
        if not self.complete:
            return []
        best_us = sum(point.weight * min(point.served.values()) for point in self.complete)
        return [self._standing(place, best_us) for place in range(len(self.contenders))]

    @property
    def winner(self) -> int | None:
        """The place of the one that takes the least time in all."""
        times = [standing.us for standing in self.standings]
        return times.index(min(times)) if times else None

    def _standing(self, place: int, best_us: float) -> Standing:
        points = self.complete
        us = sum(point.weight * point.served[place] for point in points)
        worst = max(points, key=lambda point: point.behind(place).value)
        return Standing(
            us,
            self._default_us(place),
            self._loss(place, best_us),
            worst.behind(place),
            worst.shape,
        )

    def _default_us(self, place: int) -> float | None:
        total = 0.0
        for point in self.complete:
            timing = point.timings[place]
            if timing is None or timing.default_us is None:
                return None
            total += point.weight * timing.default_us
        return total

    def _loss(self, place: int, best_us: float) -> Ratio:
        lost_us, squares, has_interval = 0.0, 0.0, False
        for point in self.complete:
            if place == point.fastest:
                continue
            ratio, us = point.behind(place), point.weight * point.served[place]
            lost_us += us * (1 - 1 / ratio.value)
            if ratio.low is not None:
                squares += (us * math.log(ratio.value / ratio.low) / ratio.value) ** 2
                has_interval = True
        value, off = 1 + lost_us / best_us, math.sqrt(squares) / best_us
        return Ratio(value, value - off, value + off) if has_interval else Ratio(value)


def contests(tables: Iterable[FoundTable]) -> list[Contest]:
    """The tables by their grounds, in the order given; one of a single table has no points.

    Where backends stand beside one that has tables of several releases, each release is a ground:
    no shape that another release lacks is left out for it.
    """
    grounds: dict[Ground, list[FoundTable]] = {}
    for table in tables:
        grounds.setdefault(Ground.of(table.file.header), []).append(table)
    return [
        _contest(each, of_each)
        for ground, found in grounds.items()
        for each, of_each in _by_release(ground, found).items()
    ]


def _by_release(ground: Ground, tables: Sequence[FoundTable]) -> dict[Ground, list[FoundTable]]:
    releases: dict[str, set[str | None]] = {}
    grounds: dict[Ground, list[FoundTable]] = {}
    for table in tables:
        header = table.file.header
        release = header.software.get("vllm")
        releases.setdefault(header.backend, set()).add(release)
        grounds.setdefault(replace(ground, vllm=release), []).append(table)
    has_several = any(len(of_backend) > 1 for of_backend in releases.values())
    return grounds if has_several and len(releases) > 1 else {ground: list(tables)}


def _contest(ground: Ground, tables: Sequence[FoundTable]) -> Contest:
    entries = [{entry.shape: entry for entry in table.file.entries} for table in tables]
    points, differing = common_points(entries, ground.compute_capability is not None)
    return Contest(ground, _named(tables), tuple(points), tuple(differing))


def _named(tables: Sequence[FoundTable]) -> tuple[Contender, ...]:
    """Contenders by the shortest names that tell them apart."""
    contenders = [Contender(table.file.header.backend, table) for table in tables]
    with_release = (f"{each.backend} {each.vllm}" for each in contenders)
    with_length = (
        f"{each.backend} up to {format_size(each.table.file.header.engine.max_model_len)}"
        for each in contenders
    )
    with_path = (str(each.table.path) for each in contenders)
    for longer in (with_release, with_length, with_path):
        counts = Counter(each.name for each in contenders)
        contenders = [
            Contender(name, each.table) if counts[each.name] > 1 else each
            for each, name in zip(contenders, longer, strict=True)
        ]
    return tuple(contenders)
