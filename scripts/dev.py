#!/usr/bin/env python3
"""Set a checkout up and run it, on a machine that has only Python.

    python3 scripts/dev.py quickstart   make .venv and tune TORCH_MLA for examples/shapes.yaml
    python3 scripts/dev.py test         make .venv with all test needs; lint, type-check and test
    python3 scripts/dev.py docs         make .venv with MkDocs; build the documents in build/site

All may be run again at any time; what is installed already is not installed twice.
"""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
# vLLM's wheel brings these, built for CUDA; with a CPU build of torch they fail to import,
# and vLLM does without them.
CUDA_ONLY = ["torchvision", "torchaudio", "torchcodec"]
# The release that is developed against. It asks for torch 2.14; over 2.13 and what the release in
# constraints.txt has brought, its builders and Triton kernels run.
NEWEST_VLLM = "0.33.0"
PLUGIN_TESTS = "tests/vllm/plugin"
NEWEST = VENV / f"vllm-{NEWEST_VLLM}"

SECONDS_BETWEEN_SIGNS = 10.0

REPORT = ("report", "build/tables", "--study-dir", "build/studies", "--out", "build/report.html")


@dataclass
class Job:
    """A command, with what it prints kept until it is done."""

    name: str
    command: tuple[str | Path, ...]
    environment: dict[str, str]

    def start(self) -> None:
        self._began = time.monotonic()
        self._output: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - read when it ends
        command = [str(part) for part in self.command]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        print(f"+ {self.name}: {' '.join(command)}", flush=True)

    def ended(self) -> bool:
        return self._process.poll() is not None

    def report(self) -> bool:
        """Print what the command printed. Returns whether it succeeded."""
        self._output.seek(0)
        spent_s = time.monotonic() - self._began
        print(f"--- {self.name}, {spent_s:.0f} s", self._output.read(), sep="\n", flush=True)
        return self._process.returncode == 0


def run(*command: str | Path) -> None:
    print("+", *command, flush=True)
    done = subprocess.run([str(part) for part in command], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def run_in_pairs(jobs: list[Job]) -> None:
    """Run ``jobs`` two at a time, and leave if one fails."""
    waiting, running, failed = list(jobs), list[Job](), list[str]()
    while waiting or running:
        while waiting and len(running) < 2:
            running.append(waiting.pop(0))
            running[-1].start()
        time.sleep(0.2)
        for job in [job for job in running if job.ended()]:
            running.remove(job)
            if not job.report():
                failed.append(job.name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def pip(*arguments: str | Path) -> None:
    """Run pip, with what it does now every ten seconds instead of a line for each package."""
    command = [str(part) for part in (PYTHON, "-m", "pip", *arguments)]
    print("+", *command, flush=True)
    began = time.monotonic()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    steps = PipSteps()
    with (
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        ) as process,
        signs_of_life(lambda: f"{steps}, {time.monotonic() - began:.0f} s"),
    ):
        assert process.stdout is not None
        for line in process.stdout:
            steps.see(line)
    ended = "failed after" if process.returncode else "done in"
    print(f"  {ended} {time.monotonic() - began:.0f} s", flush=True)
    if process.returncode:
        sys.exit(process.returncode)


class PipSteps:
    """What pip does, from what it prints: it is silent while it downloads and while it installs."""

    def __init__(self) -> None:
        self._found = 0
        self._doing = "asks the index"

    def see(self, line: str) -> None:
        """Take a line of pip's in."""
        first, _, rest = line.strip().partition(" ")
        if first == "Collecting":
            self._found += 1
            self._doing = f"{self._found} packages found"
        elif first == "Downloading" and ".metadata" not in rest:
            self._doing = f"{self._found} packages found; downloads {rest.rpartition('/')[2]}"
        elif line.startswith("Installing collected packages"):
            self._doing = f"installs {rest.count(',') + 1} packages"

    def __str__(self) -> str:
        return self._doing


@contextlib.contextmanager
def signs_of_life(
    told: Callable[[], object], seconds: float = SECONDS_BETWEEN_SIGNS
) -> Iterator[None]:
    """Print a line with ``told()`` every so many seconds, for as long as the block takes."""
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(seconds):
            print(f"  {told()}", flush=True)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


def install(extras: str) -> None:
    """Install the checkout, unless the same was installed before."""
    inputs = [ROOT / "pyproject.toml", ROOT / "constraints.txt", Path(__file__)]
    state = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()
    marker = VENV / f".installed{extras}"
    if marker.exists() and marker.read_text() == state:
        return
    if "vllm" in extras or "dev" in extras:
        print("installing what tests need: .venv takes about 7 GB; three minutes on two cores")
        print("with the packages at hand, one of them to unpack", flush=True)
    if not PYTHON.exists():
        venv.create(VENV, with_pip=True)
    # Of 35,000 modules, two minutes' work, few are ever imported; those are compiled when they are.
    unpacked = ("install", "--no-compile")
    pip(*unpacked, "--constraint", "constraints.txt", "--editable", f".{extras}")
    if "vllm" in extras:
        pip("uninstall", "--yes", *CUDA_ONLY)
        if not NEWEST.exists():
            wanted = f"vllm=={NEWEST_VLLM}"
            pip(*unpacked, "--no-deps", "--target", NEWEST, wanted)
    marker.write_text(state)


def quickstart() -> None:
    """Tune the portable backend for the example file."""
    install("[report]")
    run(
        VENV / "bin" / "mla-tune",
        *("tune", "--backend", "TORCH_MLA", "--shapes", "examples/shapes.yaml"),
        *("--out", "build/tables", "--study-dir", "build/studies", "--confirm-seconds", "5"),
    )
    print("the command is .venv/bin/mla-tune; next, what was found as a page with plots:")
    print(f"  .venv/bin/mla-tune {' '.join(REPORT)}", flush=True)


def test() -> None:
    """Lint, type-check and test."""
    install("[dev,vllm]")
    run(PYTHON, "-m", "ruff", "check", ".")
    run(PYTHON, "-m", "ruff", "format", "--check", ".")
    run(PYTHON, "-m", "mypy")
    run(VENV / "bin" / "lint-imports", "--no-logo")
    run(PYTHON, "-m", "pytest", "-m", "not vllm", "-n", "2", "--durations", "10")
    # Each in a process of its own: vLLM and Triton read their environment once, at import.
    older = older_vllm()
    run_in_pairs(
        [
            contract_tests("tests/vllm", NEWEST_VLLM, "tests/scripts", "--ignore", PLUGIN_TESTS),
            contract_tests(PLUGIN_TESTS, NEWEST_VLLM),
            contract_tests(PLUGIN_TESTS, older),
        ]
    )


def docs() -> None:
    """Build the documents as a site."""
    install("[docs]")
    os.environ["NO_MKDOCS_2_WARNING"] = "1"  # of the theme; see docs/dependencies.md
    run(PYTHON, "-m", "mkdocs", "build", "--quiet")
    # Opened as a file a page can be read, without search and the choice of colours.
    print(f"the site lies in {ROOT}/build/site; read it at http://localhost:8000 with")
    print(f"    {PYTHON} -m http.server --bind localhost --directory {ROOT}/build/site 8000")


def older_vllm() -> str:
    """The release in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line.removeprefix("vllm==") for line in lines if line.startswith("vllm=="))


def contract_tests(folder: str, release: str, *options: str) -> Job:
    """The tests of ``folder`` on a release of vLLM, which tests/conftest.py makes sure of."""
    path = {"PYTHONPATH": str(NEWEST)} if release == NEWEST_VLLM else {}
    pytest: tuple[str | Path, ...] = (PYTHON, "-m", "pytest", "-m", "vllm", "--durations", "5")
    environment = {**path, "MLA_TUNE_TESTS_VLLM": release}
    return Job(f"{folder}, vLLM {release}", (*pytest, folder, *options), environment)


COMMANDS = {"quickstart": quickstart, "test": test, "docs": docs}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        sys.exit(str(__doc__))
    COMMANDS[sys.argv[1]]()
