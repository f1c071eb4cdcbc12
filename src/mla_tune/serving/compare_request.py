"""What the comparing process is asked to do, and what it answers."""

__all__ = ["CompareAnswer", "CompareRequest", "Contending", "plan_key"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mla_tune.serving.message import Message
from mla_tune.shapes import RequestGroup
from mla_tune.tuning.comparison import Comparison


def plan_key(group: RequestGroup, mode: str) -> str:
    """Which plan a batch has: a graph has one of its size, an eager step one of its lengths too."""
    size = f"{group.count}q{group.query_len}"
    return size if mode == "graph" else f"{size}s{group.kv_len}"


@dataclass(frozen=True)
class Contending:
    """A backend, and what of it is compared.

    Attributes:
        backend: its name.
        shapes: the keys of a shapes file with the batches to time.
        plans: what its table says of them, by `plan_key`; the default where there is nothing.
    """

    backend: str
    shapes: dict[str, Any]
    plans: Mapping[str, Mapping[str, int | str]]


@dataclass(frozen=True)
class CompareRequest(Message):
    """Backends beside each other.

    Attributes:
        contenders: the first is what the others have to beat.
        device: as of ``--device``.
        gate: the speed-up that is asked for.
        ends_s: when no more is measured, in seconds of the monotonic clock, which all processes of
            a host share.
    """

    contenders: tuple[Contending, ...]
    device: str
    gate: float
    ends_s: float


@dataclass(frozen=True)
class CompareAnswer(Message):
    """What was found.

    Attributes:
        comparisons: of each that could be measured beside the first.
        problem: why there are none, in a line; or empty.
    """

    comparisons: tuple[Comparison, ...] = ()
    problem: str = ""
