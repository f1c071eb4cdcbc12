import argparse
import asyncio
import itertools
import json
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("openai", reason="comes with vLLM")

import bench_serve

SERVER = """
import pathlib, subprocess, sys, time
print("mla-tune: 3 of 3 captured sizes", flush=True)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(600)
"""


class Stand:
    """Servers of one line each, which answer once their file is there, and measure nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out.json"
        self.arguments = argparse.Namespace(batches=[1], contexts=[8], out=self.out)
        self.child = folder / "child"
        self.children: list[str] = []
        self.good = [sys.executable, "-c", SERVER, str(self.child)]
        self.bad = [sys.executable, "-c", "raise SystemExit('no GPU')"]

    def run(self, **commands: list[str]) -> dict[str, dict[str, object]]:
        result: dict[str, dict[str, object]] = {"arguments": {}}
        bench_serve.run_starts(commands, self.folder, self.arguments, result)
        return result

    @property
    def written(self) -> dict[str, dict[str, object]]:
        return json.loads(self.out.read_text())

    def answers(self, _: object) -> bool:
        if not (self.child.exists() and self.child.read_text()):
            return False
        self.children.append(self.child.read_text())
        self.child.unlink()
        return True

    @property
    def are_gone(self) -> bool:
        """Whether no child runs; one that was killed may wait to be collected by process 1."""
        return all(map(_is_gone, self.children))


def _is_gone(child: str) -> bool:
    status = Path(f"/proc/{child}/stat")
    for _ in range(100):
        if not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    made = Stand(tmp_path)

    async def decoded(batch: int, context: int) -> list[float]:
        del batch, context
        return [2.0, 1.0, 3.0]

    # A start has built 70 steps that vLLM does not count.
    looks = itertools.cycle([(70.0, 1.0), (75.0, 6.0)])

    def metrics() -> dict[str, object]:
        ours, engine = next(looks)
        return {"steps": {"graph hit": ours}, "events": {}, "engine_steps": engine}

    monkeypatch.setattr(bench_serve, "_answers", made.answers)
    monkeypatch.setattr(bench_serve, "decoded", decoded)
    monkeypatch.setattr(bench_serve, "metrics", metrics)
    monkeypatch.setattr(bench_serve, "COUNTED_AFTER_S", 0.0)
    return made


def test_a_start_that_ends_badly_is_told_and_the_next_goes_on(stand: Stand) -> None:
    result = stand.run(plain=stand.bad, tuned=stand.good, again=stand.good)
    assert str(result["plain"]["problem"]).endswith("no GPU")
    assert result["again"]["cells"] == [
        {"batch": 1, "context": 8, "step_ms": 2.0, "rounds_ms": [2.0, 1.0, 3.0]}
    ]
    assert result["again"]["said"] == ["mla-tune: 3 of 3 captured sizes"]
    assert stand.written == result
    assert len(stand.children) == 2
    assert stand.are_gone
    (problem,) = bench_serve.judged(result, 1.0)
    assert problem.startswith("plain: RuntimeError: no server by")


def test_what_is_known_at_an_interrupt_is_written(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(*_: object) -> list[float]:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench_serve, "decoded", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stand.run(tuned=stand.good, again=stand.good)
    assert stand.written["tuned"]["problem"] == "KeyboardInterrupt"
    assert stand.written["tuned"]["metrics_before"]
    assert "again" not in stand.written
    assert stand.are_gone


def test_a_slower_cell_and_a_budget_that_was_not_kept(stand: Stand) -> None:
    result = stand.run(plain=stand.good, tuned=stand.good, again=stand.good)
    for name, seconds in {"plain": 10.0, "tuned": 12.0, "again": 14.0}.items():
        result[name]["first_token_s"] = seconds
    result["tuned"]["cells"] = [{"batch": 1, "context": 8, "step_ms": 2.1, "rounds_ms": [2.1]}]
    assert bench_serve.judged(result, 1.0) == [
        "the budget of 1 s was not kept",
        "the second start adds 4.0 s",
        "1 x 8 is slower",
    ]


def test_what_is_added_is_added_to_the_faster_plain_start(stand: Stand) -> None:
    result = stand.run(**dict.fromkeys(("plain", "tuned", "again", "plain-last"), stand.good))
    for name, seconds in {"plain": 14.0, "tuned": 14.5, "again": 14.5, "plain-last": 10.0}.items():
        result[name]["first_token_s"] = seconds
    assert bench_serve.judged(result, 4.0) == [
        "the budget of 4 s was not kept",
        "the second start adds 4.5 s",
    ]


def test_a_later_command_goes_on_with_what_an_earlier_one_wrote(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three commands: their starts are judged together, and others' are refused."""
    server = stand.folder / "python"
    server.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{SERVER}' {stand.child}\n")
    server.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(server))
    cache = stand.folder / "servers/cache"

    def bench(*arguments: str) -> int:
        told = ["--folder", str(cache.parent), "--out", str(stand.out), "--batches", "1"]
        monkeypatch.setattr(sys, "argv", ["bench_serve.py", *told, *arguments])
        return bench_serve.main()

    assert bench("--runs", "warm-up", "plain") == 0
    assert list(stand.written) == ["arguments", "warm-up", "plain"]
    cache.mkdir()
    assert bench("--runs", "tuned") == 0
    assert not cache.exists()  # it begins empty
    with pytest.raises(SystemExit, match="is of other servers"):
        bench("--heads", "32")
    assert bench("--runs", "again") == 0
    assert list(stand.written) == ["arguments", "warm-up", "plain", "tuned", "again"]


def test_steps_that_were_not_counted(stand: Stand) -> None:
    result = stand.run(plain=stand.good, tuned=stand.good, again=stand.good)
    for name in result.keys() - {"arguments"}:
        result[name]["first_token_s"] = 10.0
    result["again"]["metrics"]["engine_steps"] = 7.0
    assert bench_serve.judged(result, 1.0) == ["again: 5 steps counted of 6"]


class Client:
    """Takes 10 s for its prompts and 2 s for each token, by a clock of its own."""

    def __init__(self, **_: object) -> None:
        self.completions = self
        self.now_s = 0.0

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def create(self, *, max_tokens: int, prompt: str, **_: object) -> None:
        if prompt == bench_serve.text(0, 8):  # requests run side by side
            self.now_s += 10.0 + 2.0 * max_tokens


def test_a_step_is_what_a_token_more_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    monkeypatch.setattr(bench_serve.openai, "AsyncOpenAI", lambda **_: client)
    monkeypatch.setattr(bench_serve.time, "monotonic", lambda: client.now_s)
    assert asyncio.run(bench_serve.decoded(3, 8)) == [2000.0] * bench_serve.ROUNDS
