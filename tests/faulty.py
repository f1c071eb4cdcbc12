"""TORCH_MLA with plans that misbehave: the opener for a worker process, importable by name there.

`open_faulty` is given the faults by plan through `functools.partial`.
"""

import ctypes
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from mla_tune.environment import Environment
from mla_tune.measuring.bench import Announce, SessionBench
from mla_tune.measuring.capture import CaptureLost
from mla_tune.plan.plan import Plan
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape

MIB = 2**20


def _raises(_output: torch.Tensor) -> None:
    raise ValueError("bad plan [/tmp/x] in a message\nand a second line")


def _raises_in_a_circle(_output: torch.Tensor) -> None:
    error = ValueError("its own cause")
    raise error from error


def _sleeps(_output: torch.Tensor) -> None:
    time.sleep(3600)


def _loses_a_capture(_output: torch.Tensor) -> None:
    raise CaptureLost("operation not permitted when stream is capturing")


def _exits(_output: torch.Tensor) -> None:
    os._exit(7)


def _segfaults(_output: torch.Tensor) -> None:
    ctypes.string_at(0)


def _fills_the_disk(_output: torch.Tensor) -> None:
    Path("/dev/full").write_text("compiled")


def _takes_all_memory(_output: torch.Tensor) -> None:
    hoard = []
    while True:
        hoard.append(torch.ones(256 * MIB, dtype=torch.uint8))


def _scales(output: torch.Tensor) -> None:
    output.mul_(1.01)


def _leaves_one_unwritten(output: torch.Tensor) -> None:
    output[-1, -1] = float("nan")


def _spoils_one_row(output: torch.Tensor) -> None:
    output[output.shape[0] // 2].mul_(1.1)


FAULTS: dict[str, Callable[[torch.Tensor], None]] = {
    "raises": _raises,
    "raises in a circle": _raises_in_a_circle,
    "sleeps": _sleeps,
    "loses a capture": _loses_a_capture,
    "exits": _exits,
    "segfaults": _segfaults,
    "fills the disk": _fills_the_disk,
    "takes all memory": _takes_all_memory,
    "scales by 1 %": _scales,
    "leaves one element unwritten": _leaves_one_unwritten,
    "spoils one row": _spoils_one_row,
}


class Misbehaving:
    """A prepared plan whose forward pass is followed by its fault."""

    def __init__(self, prepared, fault: Callable[[torch.Tensor], None]) -> None:
        self.output = prepared.output
        self._prepared = prepared
        self._fault = fault

    @contextmanager
    def applied(self) -> Iterator[Callable[[], None]]:
        with self._prepared.applied() as run:

            def run_and_fail() -> None:
                run()
                self._fault(self.output)

            yield run_and_fail


class FaultyBench(SessionBench):
    """A session bench of which some plans do what ``faults`` says."""

    def __init__(
        self, faults: Mapping[Plan, str], environment: Environment, announce: Announce
    ) -> None:
        super().__init__(environment, announce)
        self._faults = faults

    def open(self, setup: Setup) -> None:
        super().open(setup)
        prepare = self._session.prepare

        def prepare_faulty(shape: BatchShape, plan: Plan):
            prepared = prepare(shape, plan)
            if plan not in self._faults:
                return prepared
            return Misbehaving(prepared, FAULTS[self._faults[plan]])

        self._session.prepare = prepare_faulty


def faulty_bench(
    faults: Mapping[Plan, str], environment: Environment, announce: Announce
) -> FaultyBench:
    """Make a bench that may take half a GiB more than it has: the test machine is shared."""
    used = psutil.Process().memory_info().data
    resource.setrlimit(resource.RLIMIT_DATA, (used + 512 * MIB, resource.RLIM_INFINITY))
    return FaultyBench(faults, environment, announce)


def faulty_bench_without_room(
    faults: Mapping[Plan, str], environment: Environment, announce: Announce
) -> FaultyBench:
    """Make a bench whose process can add to no file, as when the disk is full under its log."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    return FaultyBench(faults, environment, announce)


class FailsOnce(SessionBench):
    """A session bench that something happens to once, in the middle of a race."""

    def __init__(self, mark: Path, environment: Environment, announce: Announce) -> None:
        super().__init__(environment, announce)
        self._mark = mark

    def race(self, plans, rounds, seed, cases=None):
        if not self._mark.exists():
            self._mark.touch()
            self._announce(plans[0], "sample")
            self.fail()
        return super().race(plans, rounds, seed, cases)


class KilledOnce(FailsOnce):
    """SIGKILL, as by an operator."""

    def fail(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class HangsOnce(FailsOnce):
    """A hang, as on a machine in trouble."""

    def fail(self) -> None:
        time.sleep(3600)


class EndedFromOutside(SessionBench):
    """A session bench whose process gets a signal in every race."""

    def __init__(self, number: int, environment: Environment, announce: Announce) -> None:
        super().__init__(environment, announce)
        self._number = number

    def race(self, plans, rounds, seed, cases=None):
        self._announce(plans[0], "sample")
        os.kill(os.getpid(), self._number)
        return super().race(plans, rounds, seed, cases)


class DiesOnOpen(SessionBench):
    """A session bench that ends its process when it is opened."""

    def open(self, setup: Setup) -> None:
        del setup
        os._exit(9)


def end_at_once(environment: Environment, announce: Announce) -> SessionBench:
    """End the process before there is a bench."""
    del environment, announce
    os._exit(9)
