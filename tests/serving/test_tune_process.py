import os
import time
from pathlib import Path

import pytest

from mla_tune.serving import tune_process
from mla_tune.serving.compare_request import CompareAnswer, CompareRequest
from mla_tune.serving.tune_process import TIME_OVER, compare_until, tune_until
from mla_tune.serving.tune_request import TuneAnswer, TuneRequest


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_process, "MODULE", "stand_in_tune_main")
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


def tune(how: str, folder: Path, timeout_s: float = 120.0) -> TuneAnswer:
    request = TuneRequest({}, how, folder, folder / "studies", "cpu", None, 1)
    return tune_until(request, time.monotonic() + timeout_s)


@pytest.mark.parametrize(
    ("how", "answer"),
    [
        ("done", TuneAnswer(("q1s1k",), "one failed")),
        ("killed", TuneAnswer(problem="tuning was ended by SIGKILL")),
        ("raises", TuneAnswer(problem="tuning ended with exit code 1")),
    ],
)
def test_how_it_ends(
    how: str, answer: TuneAnswer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tune(how, tmp_path) == answer
    out, _ = capfd.readouterr()
    assert out == ""  # vLLM's alone


def test_when_the_time_is_over_it_keeps_what_is_decided(tmp_path: Path) -> None:
    # The start of an interpreter takes part of it.
    answer = tune("goes on", tmp_path, timeout_s=tune_process.STOP_S + 5)
    assert answer == TuneAnswer(problem=TIME_OVER)
    assert (tmp_path / "kept").exists()


def test_one_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_process, "STOP_S", 0.5)
    assert tune("hangs", tmp_path, timeout_s=1.5) == TuneAnswer(problem=TIME_OVER)


def test_an_interrupt_stops_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(process: object, timeout_s: float) -> bool:
        del process, timeout_s
        time.sleep(3)
        raise KeyboardInterrupt

    monkeypatch.setattr(tune_process, "_waited", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune("goes on", tmp_path)
    assert (tmp_path / "kept").exists()


def test_a_comparison_ends_likewise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "none.py").write_text("raise SystemExit(1)")
    paths = [str(tmp_path), os.environ["PYTHONPATH"]]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setattr(tune_process, "COMPARING", "none")
    request = CompareRequest((), "cpu", 1.02, 1.0)
    found = compare_until(request, time.monotonic() + 120)
    assert found == CompareAnswer(problem="comparing ended with exit code 1")
