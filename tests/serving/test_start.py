import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.serving import start
from mla_tune.serving.cache import Cache
from mla_tune.serving.engine_process import RefusedByVllm
from mla_tune.serving.metrics_folder import VARIABLE as FOLDER
from mla_tune.serving.prepare import Preparation
from mla_tune.serving.prepare_options import PrepareOptions
from mla_tune.serving.start import Stopped, become, prepared_or_untuned, stopping
from mla_tune.serving.vllm_command import VllmCommand

COMMAND = VllmCommand.of(["vllm", "serve", "model"])
Prepare = Callable[[Callable[[], object]], tuple[Preparation, list[str]]]


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Prepare:
    def call(instead: Callable[[], object]) -> tuple[Preparation, list[str]]:
        monkeypatch.setattr(start, "prepared", lambda _options: instead())
        said: list[str] = []
        options = PrepareOptions(COMMAND, Cache(tmp_path), deadline_s=0, say=said.append)
        return prepared_or_untuned(COMMAND, lambda: options, said.append), said

    return call


def raising(error: BaseException) -> Callable[[], object]:
    def raise_it() -> object:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            EnvironmentFailure("no worker starts", remedy="see its log"),
            "no worker starts; to do:",
        ),
        (InputError("nothing to tune"), "nothing to tune"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left"),
        (RecursionError("too deep"), "RecursionError: too deep"),
    ],
)
def test_whatever_fails_vllm_starts_untuned(error: Exception, line: str, prepare: Prepare) -> None:
    found, said = prepare(raising(error))
    assert found == Preparation(COMMAND)
    assert len(said) == 1
    assert said[0].startswith(f"vLLM starts untuned: {line}")


def test_what_vllm_refuses_is_vllms_to_say(prepare: Prepare) -> None:
    assert prepare(raising(RefusedByVllm("unrecognized arguments"))) == (Preparation(COMMAND), [])


def test_what_is_in_part_tuned_is_said(prepare: Prepare) -> None:
    made = Preparation(COMMAND, "tables", "one size crashes")
    assert prepare(lambda: made) == (made, ["not all could be tuned: one size crashes"])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Stopped(signal.SIGTERM)])
def test_a_signal_does_not_start_vllm(error: BaseException, prepare: Prepare) -> None:
    with pytest.raises(type(error)):
        prepare(raising(error))


def test_sigterm_ends_in_order_while_preparing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as stopped, stopping():
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_program_that_is_not_there() -> None:
    command = VllmCommand.of(["/nowhere/vllm", "serve", "model"])
    with pytest.raises(EnvironmentFailure, match="/nowhere/vllm cannot be started") as failure:
        become(Preparation(command), {}, print)
    assert failure.value.exit_code == 127
    # What this process then prints may find no reader.
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN


START = """
import os
from mla_tune.serving.prepare import Preparation
from mla_tune.serving.start import become
from mla_tune.serving.vllm_command import VllmCommand
print(os.getpid())
become(Preparation(VllmCommand.of([{vllm!r}, "serve", "a b"]), {tables!r}), os.environ, print{how})
"""
VLLM = f"""#!{sys.executable}
import json, os, sys
print(json.dumps([os.getpid(), sys.argv[1:], dict(os.environ)]))
sys.exit(7)
"""


@dataclass
class Started:
    """What a program saw that took our place.

    Attributes:
        pids: ours and its.
        said: before it started.
    """

    code: int
    pids: tuple[int, int]
    said: list[str]
    arguments: list[str]
    variables: dict[str, str]


@pytest.fixture
def became(tmp_path: Path) -> Callable[..., Started]:
    vllm = tmp_path / "vllm"
    vllm.write_text(VLLM)
    vllm.chmod(0o755)
    (tmp_path / "tmp").mkdir()

    def call(
        tables: str | None = "t1:t2", how: str = "", before: str = "", **variables: str
    ) -> Started:
        done = subprocess.run(
            [sys.executable, "-c", before + START.format(vllm=str(vllm), tables=tables, how=how)],
            env=os.environ | {"TMPDIR": str(tmp_path / "tmp")} | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        ours, *said, theirs = done.stdout.splitlines()
        pid, arguments, found = json.loads(theirs)
        return Started(done.returncode, (int(ours), pid), said, arguments, found)

    return call


def test_the_program_takes_our_place(became: Callable[..., Started]) -> None:
    start = became()
    assert start.pids[0] == start.pids[1]
    assert start.arguments == ["serve", "a b"]
    assert start.variables["MLA_TUNE_TABLES"] == "t1:t2"
    assert start.code == 7


def test_a_tuned_engine_has_a_folder_for_its_counts(
    became: Callable[..., Started], tmp_path: Path
) -> None:
    start = became()
    folder = Path(start.variables[FOLDER])
    assert folder.parent == tmp_path / "tmp"
    assert folder.is_dir()
    assert "--no-metrics" in start.said[0]


def test_a_folder_that_cannot_be_made_is_said(became: Callable[..., Started]) -> None:
    full = "import tempfile; tempfile.mkdtemp = lambda **_: open('/nowhere/metrics')"
    start = became(before=full)
    assert start.said == [
        "no counts of mla-tune in /metrics: /nowhere/metrics: No such file or directory"
    ]
    assert FOLDER not in start.variables
    assert start.code == 7


@pytest.mark.parametrize(
    ("how", "variables"),
    [
        ({"tables": None}, {}),  # untuned
        ({"how": ", metrics=False"}, {}),
        ({}, {FOLDER: "/the/users/own"}),
    ],
)
def test_what_vllm_counts_is_left_alone(
    how: dict[str, Any], variables: dict[str, str], became: Callable[..., Started]
) -> None:
    start = became(**how, **variables)
    assert start.variables.get(FOLDER) == variables.get(FOLDER)
    assert start.said == []
