"""Kill and suspend the real command on TORCH_MLA at random moments, and look at what is left.

After every kill the trials that were in the journal are still there, and the same command goes on.
A suspension, longer than every time-out, changes nothing. Whatever is published passed the gate.

    python scripts/torture_run.py --kills 50 --suspensions 20 --seed 0
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from mla_tune.table import TableFile
from mla_tune.tuning.run_settings import MIN_SPEEDUP_ON_CPU

SHAPES = """\
model: {name: tiny, num_q_heads: 2, kv_lora_rank: 32, qk_nope_head_dim: 16, qk_rope_head_dim: 8, \
v_head_dim: 16}
batch_specs: [q1s64, 2q1s300, 4q1s200, q8s70_2q1s130]
"""
TIMEOUT_S = 2.0
SUSPENDED_S = 2 * TIMEOUT_S + 1
LONGEST_RUN_S = 300.0

Trial = tuple[int, dict[str, Any]]


class BrokenPromise(Exception):
    """Something was lost, or published without the gate."""


@dataclass
class Torture:
    """One series of runs in ``folder``; a new study is begun whenever one is done.

    Attributes:
        length_s: how long an undisturbed run takes, the span of the random moments.
        counts: what was done, and what came of it.
    """

    folder: Path
    dice: random.Random
    length_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    _studies: int = 0

    def __post_init__(self) -> None:
        self.shapes = self.folder / "shapes.yaml"
        self.shapes.write_text(SHAPES)
        self._begin()
        began = time.monotonic()
        with self._command() as process:
            self._finished(process)
        self.length_s = time.monotonic() - began
        self._begin()

    def _begin(self) -> None:
        self._studies += 1
        self.study = self.folder / f"study-{self._studies}"
        self.study.mkdir()

    @contextmanager
    def _command(self) -> Iterator[subprocess.Popen[str]]:
        """The command, in a process group of its own that ends with this block."""
        command = [sys.executable, "-m", "mla_tune", "--backend", "TORCH_MLA", "--device", "cpu"]
        command += ["--shapes", str(self.shapes), "--out", str(self.study / "out")]
        command += ["--study-dir", str(self.study), "--confirm-seconds", "1"]
        command += ["--sample-timeout", str(TIMEOUT_S), "--plan-timeout", str(TIMEOUT_S)]
        # Other runs on this machine are not this one's business.
        environment = os.environ | {"MLA_TUNE_LOCK_DIR": str(self.folder / "locks")}
        with (self.study / "output").open("a") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                text=True,
                env=environment,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def trials(self) -> list[Trial]:
        """(study, outcome) of every whole line of the journal, in order."""
        journals = list(self.study.glob("*.journal"))
        lines = journals[0].read_bytes().split(b"\n")[:-1] if journals else []
        told = [json.loads(line) for line in lines if b'"outcome"' in line]
        return [(record["study_id"], record["user_attrs"]["outcome"]) for record in told]

    def kill(self) -> bool:
        """Kill the command, all of its processes or its worker alone at a random moment.

        Returns:
            Whether the command was still running then.
        """
        target = self.dice.choice(["command", "command and worker", "worker"])
        with self._command() as process:
            self._pass(self.dice.uniform(0, self.length_s), process)
            before = self.trials()
            running = process.poll() is None
            if running:
                self._kill(process, target)
                self.counts[f"killed: {target}"] += 1
            else:
                self.counts["ended before the kill"] += 1
            if target == "worker":
                self._finished(process)
            else:
                process.wait()
            done = process.returncode == 0
        after = self.trials()
        if after[: len(before)] != before:
            raise BrokenPromise(f"{self.study}: trials lost: {len(before)} before, {after}")
        self._check_tables()
        if done:
            self._begin()
        return running

    def _kill(self, process: subprocess.Popen[str], target: str) -> None:
        if target == "command and worker":
            os.killpg(process.pid, signal.SIGKILL)
        elif target == "command":
            process.kill()
        else:
            for worker in _workers(process):
                worker.kill()

    def suspend(self) -> bool:
        """Stop the whole command, or its worker alone, for longer than every time-out.

        Returns:
            Whether there was something to stop.
        """
        whole = self.dice.random() < 0.7
        self._begin()
        with self._command() as process:
            self._pass(self.dice.uniform(0, self.length_s), process)
            stopped = [psutil.Process(process.pid)] if process.poll() is None else []
            stopped = (stopped if whole else []) + (_workers(process) if stopped else [])
            self._each(stopped, psutil.Process.suspend)
            time.sleep(SUSPENDED_S if stopped else 0)
            self._each(stopped, psutil.Process.resume)
            what = "command and worker" if whole else "worker"
            self.counts[f"suspended: {what}" if stopped else "ended before the suspension"] += 1
            self._finished(process)
        quarantine = self.study / "quarantine.yaml"
        if quarantine.exists() and "timed out" in quarantine.read_text():
            raise BrokenPromise(f"{self.study}: {quarantine.read_text()}")
        for entry in self._check_tables():
            if entry.default_us is None:
                raise BrokenPromise(f"{self.study}: {entry.shape}: {entry.note}")
        return bool(stopped)

    def _each(self, processes: list[psutil.Process], act: Callable[[psutil.Process], None]) -> None:
        for process in processes:
            try:
                act(process)
            except psutil.NoSuchProcess:
                self.counts["gone before it was suspended"] += 1

    def _pass(self, seconds: float, process: subprocess.Popen[str]) -> None:
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return

    def _finished(self, process: subprocess.Popen[str]) -> None:
        """Wait for a run that nothing may keep from ending well."""
        if process.wait(timeout=LONGEST_RUN_S) != 0:
            raise BrokenPromise(f"exit code {process.returncode}: see {self.study / 'output'}")
        self.counts["runs that ended well"] += 1

    def _check_tables(self) -> list[Any]:
        """Every table can be read, and what it publishes passed the gate."""
        tables = list((self.study / "out").glob("*.yaml"))
        entries = [entry for path in tables for entry in TableFile.load(path).entries]
        for entry in entries:
            gated = entry.speedup is not None and entry.speedup.low > MIN_SPEEDUP_ON_CPU
            if entry.plan and not (gated and entry.default_us):
                raise BrokenPromise(f"{self.study}: {entry}")
        self.counts["entries looked at"] += len(entries)
        self.counts["plans published"] += sum(bool(entry.plan) for entry in entries)
        return entries


def _workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The worker of a running command; none where it has not started one, or has ended."""
    try:
        children = psutil.Process(process.pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.NoSuchProcess:
        return []


def torture(folder: Path, kills: int, suspensions: int, seed: int) -> Counter[str]:
    """Do it, and return what was done.

    Raises:
        BrokenPromise: a trial was lost, or something published without the gate.
    """
    series = Torture(folder, random.Random(seed))
    for act, wanted in ((series.kill, kills), (series.suspend, suspensions)):
        done = 0
        while done < wanted:
            done += act()
            print(f"{done} of {wanted}: {dict(series.counts)}", flush=True)
    return series.counts


def main() -> None:
    """Run from the command line; exits 1 with the folder named when a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--suspensions", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mla-tune-torture-"))
    try:
        counts = torture(folder, given.kills, given.suspensions, given.seed)
    except BrokenPromise as error:
        sys.exit(f"broken: {error}")
    print(f"nothing lost, nothing published without the gate: {dict(counts)}")


if __name__ == "__main__":
    main()
