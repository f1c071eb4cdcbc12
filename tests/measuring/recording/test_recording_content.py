"""What is no recording is refused with its line, and nothing it says can fill the memory."""

import copy
import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from mla_tune.errors import InputError
from mla_tune.measuring.recording import Recording

SEED = Path(__file__).parents[2] / "data" / "seeds" / "recording.jsonl"
LINES = [json.loads(line) for line in SEED.read_text().splitlines()]


def refusal(path: Path, lines: list[Any]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError) as caught:
        Recording.load(path)
    assert len(caught.value.what) < 600
    return caught.value.what


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "holds no recording"),
        ("not json\n", ":1: not a line of a recording"),
        ('{"recording": 99, "environment": {}}\n', "format 99"),
        ('{"plan": {}, "rounds": [[1]]}\n', ":1: not a line"),
        ("[1, 2]\n", ":1: not a line"),
        ("[" * 100_000 + "\n", "brackets within brackets"),
        ("7\n", ":1: not a line"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "recording"
    path.write_text(content)
    with pytest.raises(InputError, match=says):
        Recording.load(path)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Recording.load(tmp_path / "nothing")
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(SEED.read_bytes()).replace(b"\x1f\x8b\x08", b"\x1f\x8b\x07"))
    with pytest.raises(InputError, match="damaged gzip"):
        Recording.load(broken)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="a FIFO"):
        Recording.load(tmp_path / "fifo")


@pytest.mark.parametrize(
    ("line", "keys", "value", "says"),
    [
        (0, ("environment", "sm_count"), "2", "sm_count"),
        (0, ("environment", "memory_gib"), float("nan"), "memory_gib|out of bounds"),
        (0, ("environment", "device_name"), "\x1b[2J", "is no name"),
        (0, ("environment", "device_name"), "x" * 300, "is no name"),
        (0, ("environment", "compute_capability"), "x", "int"),
        (0, ("environment", "more"), 1, "unknown"),
        (0, ("recording",), True, "format True"),
        (1, ("section", "mode"), "lazy", "is none of eager, graph"),
        (1, ("section", "kv_cache_dtype"), "int3", "is none of"),
        (1, ("section", "max_model_len"), 10**400, "max_model_len|out of bounds"),
        (1, ("section", "model", "num_q_heads"), None, "num_q_heads"),
        (2, ("workload",), "8q1s1kk", "8q1s1kk"),
        (2, ("workload",), 8, "AttributeError"),
        (2, ("weights",), [1.0, 2.0], "zip|argument 2"),
        (2, ("weights",), [0.0], "no case of the workload has a weight"),
        (2, ("weights",), [1e-9], "a weight of 1e-09"),
        (2, ("weights",), [float("inf")], "a weight of inf"),
        (2, ("plans",), [], "no plans"),
        (2, ("plans",), [{"num_kv_splits": 4}] * 2, "stands twice"),
        (2, ("plans",), [{"num_kv_splits": 10**400}], "a knob of 1000"),
        (2, ("plans",), [{"splits": 4}], "unknown knob"),
        (3, ("failure", "kind"), "gone", "a failure of kind 'gone'"),
        (4, ("rounds",), [[1.0, 2.0]], "a round of"),
        (4, ("rounds",), [[0.0]], "a latency of 0"),
        (4, ("rounds",), "12", "a round of"),
        (4, ("rounds",), 7, "TypeError"),
    ],
)
def test_what_cannot_be_true_is_refused_with_its_line(
    tmp_path: Path, line: int, keys: tuple[str, ...], value: Any, says: str
) -> None:
    lines = copy.deepcopy(LINES)
    place = lines[line]
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    what = refusal(tmp_path / "recording", lines)
    assert f"recording:{line + 1}:" in what
    assert re.search(says, what)


def test_an_environment_that_changes_midway_is_refused(tmp_path: Path) -> None:
    other = {**LINES[0], "environment": {**LINES[0]["environment"], "sm_count": 3}}
    assert "another environment" in refusal(tmp_path / "recording", [*LINES, other])


def test_lines_out_of_order_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    assert "no section stands before" in refusal(path, [LINES[0], *LINES[2:]])
    assert "no workload stands before" in refusal(path, [*LINES[:2], *LINES[3:]])
    assert "no workload stands before" in refusal(path, [*LINES, LINES[1], LINES[4]])
    assert "holds no recording" in refusal(path, LINES[1:3])


def test_a_plan_that_ran_since_has_not_failed(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    failed = LINES[3]
    ran = {"race": [{"plan": failed["plan"], "rounds": [[5.0]]}]}
    path.write_text("".join(json.dumps(line) + "\n" for line in [*LINES[:4], ran]))
    (track,) = Recording.load(path).tracks
    assert (len(track.failures), len(track.rounds)) == (0, 1)


@pytest.mark.parametrize("kind", ["race", "workload", "plan"])
def test_more_than_fits_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("mla_tune.measuring.recording.content.MOST_BYTES", 1 << 20)
    plan = LINES[4]["plan"]
    many = {
        "race": [{"race": [{"plan": plan, "rounds": [[1.0]] * 200_000}]}],
        "workload": [{**LINES[2], "workload": f"{batch}q1s1k"} for batch in range(2, 900)],
        "plan": [{**LINES[2], "plans": [{"num_kv_splits": n} for n in range(1, 9000)]}],
    }
    assert "too much to hold" in refusal(tmp_path / "recording", [*LINES[:4], *many[kind]])


def test_rounds_of_a_plan_that_the_workload_has_not_are_refused(tmp_path: Path) -> None:
    other = {"race": [{"plan": {"num_kv_splits": 77}, "rounds": [[1.0]]}]}
    assert "is no plan of the workload" in refusal(tmp_path / "recording", [*LINES[:4], other])
