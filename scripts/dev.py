#!/usr/bin/env python3
"""Set a checkout up and run it, on a machine that has only Python.

    python3 scripts/dev.py quickstart   make .venv and tune TORCH_MLA for examples/shapes.yaml
    python3 scripts/dev.py test         make .venv with all test needs; ruff, mypy, pytest

Both may be run again at any time; what is installed already is not installed twice.
"""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
# vLLM's wheel brings these, built for CUDA; with a CPU build of torch they fail to import,
# and vLLM does without them.
CUDA_ONLY = ["torchvision", "torchaudio", "torchcodec"]


def run(*command: str | Path) -> None:
    print("+", *command, flush=True)
    done = subprocess.run([str(part) for part in command], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def install(extras: str, drop: list[str]) -> None:
    """Install the checkout, unless the same was installed before."""
    inputs = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    state = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()
    marker = VENV / f".installed{extras}"
    if marker.exists() and marker.read_text() == state:
        return
    if not PYTHON.exists():
        venv.create(VENV, with_pip=True)
    pip: list[str | Path] = [PYTHON, "-m", "pip"]
    run(*pip, "install", "--quiet", "--constraint", "constraints.txt", "--editable", f".{extras}")
    if drop:
        run(*pip, "uninstall", "--quiet", "--yes", *drop)
    marker.write_text(state)


def quickstart() -> None:
    """Tune the portable backend for the example file."""
    install("", [])
    run(
        VENV / "bin" / "mla-tune",
        *("--backend", "TORCH_MLA", "--shapes", "examples/shapes.yaml"),
        *("--out", "build/tables", "--study-dir", "build/studies", "--confirm-seconds", "5"),
    )


def test() -> None:
    """Lint, type-check and test."""
    install("[dev,vllm]", CUDA_ONLY)
    run(PYTHON, "-m", "ruff", "check", ".")
    run(PYTHON, "-m", "ruff", "format", "--check", ".")
    run(PYTHON, "-m", "mypy")
    run(PYTHON, "-m", "pytest", "-m", "not vllm")
    # Each in a process of its own: vLLM and Triton read their environment once, at import.
    run(PYTHON, "-m", "pytest", "-m", "vllm", "tests/backends")
    run(PYTHON, "-m", "pytest", "-m", "vllm", "tests/runtime")


COMMANDS = {"quickstart": quickstart, "test": test}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        sys.exit(str(__doc__))
    COMMANDS[sys.argv[1]]()
