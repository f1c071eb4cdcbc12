import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.serving import start
from mla_tune.serving.cache import Cache
from mla_tune.serving.engine_process import RefusedByVllm
from mla_tune.serving.prepare import Preparation, PrepareOptions
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
        become(Preparation(command), {})
    assert failure.value.exit_code == 127


def test_the_program_takes_our_place(tmp_path: Path) -> None:
    vllm = tmp_path / "vllm"
    vllm.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "print(json.dumps([os.getpid(), sys.argv[1:], os.environ['MLA_TUNE_TABLES']]))\n"
        "sys.exit(7)\n"
    )
    vllm.chmod(0o755)
    program = f"""
import os
from mla_tune.serving.prepare import Preparation
from mla_tune.serving.start import become
from mla_tune.serving.vllm_command import VllmCommand
print(os.getpid())
command = VllmCommand.of([{str(vllm)!r}, "serve", "a b"])
become(Preparation(command, "t1:t2"), dict(os.environ))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    ours, theirs = done.stdout.splitlines()
    assert json.loads(theirs) == [int(ours), ["serve", "a b"], "t1:t2"]
    assert done.returncode == 7
