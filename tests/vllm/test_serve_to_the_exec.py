"""``mla-tune serve`` up to the exec: vLLM's parser and configuration are real, vLLM itself is not.

TORCH_MLA stands in for a GPU's backend. The description of the engine is made once, and later
starts take it from their cache, as second starts do.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deepseek_folder import deepseek_folder

pytestmark = pytest.mark.vllm

TINY: dict[str, Any] = {
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "max_position_embeddings": 4096,
}
STAND_IN = """#!{python}
import json, os, sys
if "--nope" in sys.argv:
    sys.exit("vllm's own message")
names = ("MLA_TUNE_TABLES", "PROMETHEUS_MULTIPROC_DIR")
print("STARTED", json.dumps([sys.argv[1:], *map(os.environ.get, names)]))
sys.exit(5)
"""


@dataclass
class Start:
    code: int
    out: str
    err: str

    @property
    def argv(self) -> list[str]:
        return list(self._started[0])

    @property
    def tables(self) -> str | None:
        return self._started[1]

    @property
    def metrics(self) -> str | None:
        return self._started[2]

    @property
    def _started(self) -> Any:
        (line,) = [line for line in self.out.splitlines() if line.startswith("STARTED")]
        return json.loads(line.removeprefix("STARTED"))

    @property
    def lines(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("mla-tune:")]


class Serving:
    def __init__(self, folder: Path) -> None:
        self.model = deepseek_folder(folder / "model", **TINY)
        self.arguments = [
            *(str(self.model), "--load-format", "dummy", "--enforce-eager"),
            *("--max-num-seqs", "2", "--max-model-len", "128"),
        ]
        program = folder / "bin" / "vllm"
        program.parent.mkdir()
        program.write_text(STAND_IN.format(python=sys.executable))
        program.chmod(0o755)
        self.environ = os.environ | {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
        for name in ("MLA_TUNE_TABLES", "PROMETHEUS_MULTIPROC_DIR"):
            self.environ.pop(name, None)

    def command(self, cache: Path, *vllm: str, ours: tuple[str, ...] = ()) -> list[str]:
        backend = () if "--backend" in ours else ("--backend", "TORCH_MLA")
        options = ["--cache", str(cache), *backend, "--device", "cpu", *ours]
        return [sys.executable, "-m", "mla_tune", "serve", *options, "--", "vllm", "serve", *vllm]

    def start(self, cache: Path, *vllm: str, ours: tuple[str, ...] = (), **how: Any) -> Start:
        done = subprocess.run(
            self.command(cache, *(vllm or self.arguments), ours=("--tune-for", "10m", *ours)),
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
            **how,
        )
        return Start(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Serving:
    return Serving(tmp_path_factory.mktemp("serving"))


@pytest.fixture(scope="module")
def first(serving: Serving, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Start]:
    cache = tmp_path_factory.mktemp("cache")
    return cache, serving.start(cache)


@pytest.fixture
def described(first: tuple[Path, Start], tmp_path: Path) -> Path:
    """A cache that knows the engine and has no tables."""
    cache = tmp_path / "cache"
    shutil.copytree(first[0] / "engines", cache / "engines")
    return cache


def test_the_first_start_tunes_and_becomes_vllm(
    serving: Serving, first: tuple[Path, Start]
) -> None:
    cache, start = first
    assert start.argv == ["serve", *serving.arguments]
    assert start.code == 5  # the program's own
    assert start.tables is not None, start.err
    assert Path(start.tables).is_relative_to(cache)
    assert "q1s128" in Path(start.tables).read_text()
    assert start.metrics is not None
    assert Path(start.metrics).is_dir()
    assert any("2 of 2 batches of TORCH_MLA have an entry" in line for line in start.lines)
    assert start.out.count("\n") == 1  # nothing of ours among vLLM's output


def test_the_second_start_asks_nobody(serving: Serving, first: tuple[Path, Start]) -> None:
    cache, start = first
    again = serving.start(cache)
    assert again.tables == start.tables
    assert "vLLM is not asked again" in again.lines[0]
    assert not any("tuning" in line for line in again.lines)


def test_a_model_that_changed_is_looked_at_again(
    serving: Serving, first: tuple[Path, Start]
) -> None:
    cache, _ = first
    config = serving.model / "config.json"
    text, before = config.read_text(), config.stat()
    try:
        config.write_text(
            text.replace('"max_position_embeddings": 4096', '"max_position_embeddings": 64')
        )
        start = serving.start(cache)
    finally:
        config.write_text(text)
        os.utime(config, ns=(before.st_atime_ns, before.st_mtime_ns))
    # The real vLLM says so itself: the length is above the model's.
    assert start.argv == ["serve", *serving.arguments]
    assert start.tables is None


def test_what_vllms_parser_refuses_is_vllms_to_refuse(serving: Serving, tmp_path: Path) -> None:
    start = serving.start(tmp_path, *serving.arguments, "--nope")
    assert (start.code, start.err.strip()) == (1, "vllm's own message")


def test_an_unknown_model_is_vllms_to_refuse(serving: Serving, tmp_path: Path) -> None:
    start = serving.start(tmp_path, str(tmp_path / "nowhere"), "--max-num-seqs", "2")
    assert start.argv[1] == str(tmp_path / "nowhere")
    assert start.tables is None


def untuned(start: Start) -> str:
    assert start.argv[0] == "serve"
    assert start.tables is None
    assert start.metrics is None
    (line,) = [line for line in start.lines if "untuned" in line]
    assert "Traceback" not in start.err
    return line


def test_a_backend_that_does_not_run_here(serving: Serving, described: Path) -> None:
    start = serving.start(described, ours=("--backend", "CUTLASS_MLA"))
    assert "needs a CUDA GPU" in untuned(start)


def test_a_cache_that_cannot_be_written(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    start = serving.start(tmp_path / "file" / "cache")
    assert "cannot be written: Not a directory" in untuned(start)


def test_a_full_disk(serving: Serving, described: Path) -> None:
    def no_file_above_2_kib() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))

    start = serving.start(described, preexec_fn=no_file_above_2_kib)
    assert "vLLM starts untuned" in untuned(start)


def test_a_budget_without_time(serving: Serving, described: Path) -> None:
    start = serving.start(described, ours=("--tune-for", "5s"))
    assert "no time was left to tune 2 batch sizes" in untuned(start)


def begun(serving: Serving, cache: Path) -> "subprocess.Popen[str]":
    """A start that is tuning."""
    command = serving.command(cache, *serving.arguments, ours=("--tune-for", "10m"))
    process = subprocess.Popen(
        command,
        env=serving.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "mla-tune: tuning" in line:
            return process
    raise AssertionError("it has ended before it tuned")


def tuning_child(process: "subprocess.Popen[str]") -> int:
    """The process that it tunes in."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (found := children.read_text().split()):
        time.sleep(0.05)
    return int(found[0])


def test_a_tuning_that_is_killed(serving: Serving, described: Path) -> None:
    process = begun(serving, described)
    os.kill(tuning_child(process), signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert "tuning was ended by SIGKILL" in untuned(Start(process.returncode, out, err))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_tuning_starts_nothing(
    number: signal.Signals, code: int, serving: Serving, described: Path
) -> None:
    process = begun(serving, described)
    child = tuning_child(process)
    process.send_signal(number)
    out, _ = process.communicate(timeout=120)
    assert (process.returncode, out) == (code, "")
    # Where the signal comes while the child is being started, it is the child that notices.
    ends_s = time.monotonic() + 60
    while Path(f"/proc/{child}").exists() and time.monotonic() < ends_s:
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()
