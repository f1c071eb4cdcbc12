"""One device of a run on several: its bench, and the thread that waits for it."""

__all__ = ["DeviceBench", "Kind", "Member", "kind_of"]

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from mla_tune.environment import Environment
from mla_tune.measuring.bench import Bench

Kind = tuple[Any, ...]
"""What the devices that share a table have in common."""


def kind_of(environment: Environment) -> Kind:
    """Equal for devices that can measure for one table."""
    return (
        environment.device_name,
        environment.compute_capability,
        environment.sm_count,
        environment.locked_sm_clock_mhz,
        environment.software_digest,
    )


class Clock(Protocol):
    """Seconds in which the run ran, as `RunningClock.now`."""

    def now(self) -> float: ...


class DeviceBench(Bench, Protocol):
    """The bench of a device, as `WorkerBench` is one."""

    device: str

    @property
    def clock(self) -> Clock: ...

    def free_bytes(self) -> int: ...

    def device_identity(self) -> str: ...

    def stop(self) -> None:
        """End what is being measured, from another thread; whoever waits gets an exception."""
        ...


@dataclass(eq=False)
class Member:
    """One device of a run.

    Its work runs in a thread of its own from the first to the last: the kernel ends a worker
    together with the thread that started it.

    Args:
        name: what it is called in what the run prints, such as ``cuda:1``.
        bench: what measures on it.
        card: which card that is, on this host or another; see `card_hash`.

    Attributes:
        remark: what the entries that it measured are to say of it, or empty.
        is_lost: whether nothing more can be measured on it.
        is_final: whether no other process can follow the one that measures.
    """

    name: str
    bench: DeviceBench
    card: str
    remark: str = ""
    is_lost: bool = False
    is_final: bool = False
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    @property
    def environment(self) -> Environment:
        return self.bench.environment

    @property
    def kind(self) -> Kind:
        """As of `kind_of`."""
        return kind_of(self.environment)
