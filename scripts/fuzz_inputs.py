#!/usr/bin/env python3
"""Read mutated inputs of every kind: none may end in a traceback, hang or fill the memory.

    python3 scripts/fuzz_inputs.py                     20,000 inputs over all kinds
    python3 scripts/fuzz_inputs.py --count 500 tables  500 of one kind
    python3 scripts/fuzz_inputs.py --seed 7            others

The kinds and their mutations are those of the tests (`tests/fuzz_kinds.py`). Each kind is read in a
process of its own, which a crash or a hang ends without ending the rest. Prints a line a kind, and
exits 1 if any input ended other than in success or in an error of ours with exit code 2. Such
inputs are kept under build/fuzz/.
"""

import argparse
import contextlib
import importlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build" / "fuzz"
LONGEST_S = 5.0
# Over the alarm inside the process, which a hang in C code does not hear.
WATCHDOG_S = 30.0
MOST_RSS_MIB = 500
# Only so that a bomb does not take this machine with it; what counts is the resident set.
ADDRESS_SPACE = 16 * 2**30


@dataclass
class Tally:
    """What became of the inputs of one kind."""

    inputs: int = 0
    read: int = 0
    refused: int = 0
    tracebacks: int = 0
    slowest_s: float = 0.0
    peak_mib: float = 0.0
    failures: list[str] = field(default_factory=list)

    def add(self, report: dict[str, Any]) -> None:
        self.inputs += 1
        self.slowest_s = max(self.slowest_s, report["seconds"])
        self.peak_mib = max(self.peak_mib, report["peak_mib"])
        outcome = report["outcome"]
        self.read += outcome == "read"
        self.refused += outcome == "refused"
        self.tracebacks += outcome == "failed"
        if outcome == "failed":
            self.failures.append(f"{report['index']}: {report['problem']}")

    @property
    def is_good(self) -> bool:
        return not self.tracebacks and self.slowest_s <= LONGEST_S and self.peak_mib <= MOST_RSS_MIB


def kinds() -> dict[str, Any]:
    for folder in (ROOT / "tests", ROOT / "src"):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    found: dict[str, Any] = importlib.import_module("fuzz_kinds").KINDS
    return found


# In the process that reads.


def read_all(name: str, first: int, count: int, seed: int) -> None:
    """Read the inputs from ``first`` on; one JSON line each on the standard output there was."""
    reports = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    kind = kinds()[name]
    read, mutants = importlib.import_module("fuzz_kinds").read, importlib.import_module("fuzzing")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    signal.signal(signal.SIGALRM, _hang)
    with tempfile.TemporaryDirectory() as scratch:
        for index, mutant in enumerate(mutants.mutants(kind, count, seed)):
            if index >= first:
                folder = Path(scratch, str(index))
                folder.mkdir()
                report = {"index": index, **_outcome(read, kind, mutant, folder)}
                reports.write(json.dumps(report) + "\n")
                reports.flush()
                shutil.rmtree(folder, ignore_errors=True)


def _hang(_signal: int, _frame: object) -> None:
    raise TimeoutError(f"took more than {LONGEST_S:g} s")


def _outcome(read: Any, kind: Any, mutant: bytes, folder: Path) -> dict[str, Any]:
    began, problem = time.monotonic(), ""
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    try:
        outcome = "read" if read(kind, mutant, folder) is None else "refused"
    except BaseException as error:
        outcome, problem = "failed", f"{type(error).__name__}: {error}"[:500]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.monotonic() - began
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"outcome": outcome, "problem": problem, "seconds": seconds, "peak_mib": peak_mib}


# In the process that watches.


def fuzzed(name: str, count: int, seed: int) -> Tally:
    """Have ``count`` inputs of a kind read, in as many processes as die of them and one."""
    tally = Tally()
    while tally.inputs < count:
        first = tally.inputs
        arguments = ["--reader", name, str(first), str(count), str(seed)]
        command = [sys.executable, __file__, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
            for report in _reports(reader):
                tally.add(report)
        if tally.inputs < count:
            problem = f"ended its process or hung (exit code {reader.returncode})"
            silent = {"index": tally.inputs, "outcome": "failed", "problem": problem}
            tally.add({**silent, "seconds": 0.0, "peak_mib": 0.0})
    return tally


def _reports(reader: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """What ``reader`` reports until it ends, or is ended because it is silent."""
    assert reader.stdout is not None
    pending = b""
    while True:
        if not select.select([reader.stdout], [], [], WATCHDOG_S)[0]:
            reader.kill()
        # Not through a buffer, which select does not see.
        if not (more := os.read(reader.stdout.fileno(), 2**16)):
            return
        *lines, pending = (pending + more).split(b"\n")
        yield from map(json.loads, lines)


def keep(name: str, count: int, seed: int, tally: Tally) -> None:
    """Write the inputs that failed where they can be looked at."""
    failed = {int(failure.partition(":")[0]) for failure in tally.failures}
    KEPT.mkdir(parents=True, exist_ok=True)
    inputs = importlib.import_module("fuzzing").mutants(kinds()[name], count, seed)
    for index, mutant in enumerate(inputs):
        if index in failed:
            (KEPT / f"{name}-{seed}-{index}").write_bytes(mutant)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument(
        "names", nargs="*", metavar="KIND", help="such as tables; all where none is named"
    )
    parser.add_argument("--count", type=int, default=20_000, help="inputs in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", nargs=4, metavar=("KIND", "FIRST", "COUNT", "SEED"))
    args = parser.parse_args(arguments)
    if args.reader:
        name, *numbers = args.reader
        read_all(name, *map(int, numbers))
        return 0
    if unknown := set(args.names) - set(kinds()):
        parser.error(f"no kind {', '.join(unknown)}; there are {', '.join(kinds())}")
    names = args.names or list(kinds())
    each = -(-args.count // len(names))
    print(
        f"{'kind':22}{'inputs':>8}{'read':>8}{'refused':>9}{'failed':>8}{'slowest s':>11}{'MiB':>6}"
    )
    good = True
    for name in names:
        tally = fuzzed(name, each, args.seed)
        print(
            f"{name:22}{tally.inputs:8}{tally.read:8}{tally.refused:9}{tally.tracebacks:8}"
            f"{tally.slowest_s:11.2f}{tally.peak_mib:6.0f}",
            flush=True,
        )
        for failure in tally.failures[:20]:
            print(f"    {failure}")
        if tally.failures:
            keep(name, each, args.seed, tally)
        good = good and tally.is_good
    return 0 if good else 1


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
