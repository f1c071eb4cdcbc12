import os
import time
from pathlib import Path

import pytest

from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.serving import engine_process
from mla_tune.serving.engine import ServedEngine
from mla_tune.serving.engine_process import NothingToPick, RefusedByVllm, ask_vllm
from mla_tune.serving.vllm_command import VllmCommand
from mla_tune.vllm import compat


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_process, "MODULE", "stand_in_engine_main")
    here = Path(__file__).parent
    paths = [str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setattr(compat, "installed", lambda: "0.33.0")


def ask(how: str, timeout_s: float = 60.0, **environ: str) -> ServedEngine:
    command = VllmCommand.of(["vllm", "serve", how])
    (found,) = ask_vllm(command, timeout_s, dict(os.environ) | environ)
    return found


def test_the_answer_without_what_vllm_prints() -> None:
    assert ask("engine", MLA_TUNE_TABLES="/tables").vllm == "no tables"


def test_the_same_engine_with_other_backends() -> None:
    command = VllmCommand.of(["vllm", "serve", "engine"])
    found = ask_vllm(command, 60.0, os.environ, ["TRITON_MLA", "FLASHMLA"])
    assert [each.backend for each in found[1:]] == ["TRITON_MLA", "FLASHMLA"]


@pytest.mark.parametrize(
    ("how", "error", "told"),
    [
        ("refused", RefusedByVllm, "vLLM refuses this command: because of that"),
        ("usage", RefusedByVllm, "vllm serve: error: unrecognized arguments: --nope"),
        ("not_tunable", InputError, "because of that"),
        ("no_choice", NothingToPick, "no backend to pick: because of that"),
        ("help", InputError, "start no server"),
        ("crash", EnvironmentFailure, r"ended \(SIGSEGV\)"),
        ("raise", EnvironmentFailure, r"exit code 1.*: RuntimeError: an import failed"),
    ],
)
def test_no_engine(how: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        ask(how)


def test_a_hang_ends_with_all_that_it_started() -> None:
    began = time.monotonic()
    with pytest.raises(EnvironmentFailure, match="did not say within 1 s"):
        ask("hang", timeout_s=1.0)
    assert time.monotonic() - began < 300


def test_without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "installed", lambda: None)
    with pytest.raises(EnvironmentFailure, match="not installed beside mla-tune"):
        ask("engine")
