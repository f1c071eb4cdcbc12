"""Two ranks of one engine, each a process with vLLM's own builder and a gloo group over both."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mla_tune.plan.plan import Plan
from mla_tune.table import merge
from tabled_engine import cpu_header, entry

# Not importorskip: whoever imports vLLM first in this process decides whether Triton interprets.
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM"),
]
RANKS = Path(__file__).with_name("two_ranks.py")
VLLMS_CAP, UNTUNED_DECODES = 32, 3


def tables(folder: Path, threshold: int = 32) -> None:
    """Tables for one of the two ranks."""
    folder.mkdir(parents=True)
    header = cpu_header("FLASH_ATTN_MLA", mode="eager")
    slower = entry("4q64s256", Plan(reorder_batch_threshold=threshold), default_us=20.0)
    merge(folder / f"{folder.parent.name}-eager.yaml", header, [slower])
    header = cpu_header("FLASH_ATTN_MLA", mode="graph")
    merge(folder / "graph.yaml", header, [entry("2q1s128", Plan(num_kv_splits=8))])


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What each rank tells of each scene; a test for every scene would import vLLM every time."""
    folder = tmp_path_factory.mktemp("ranks")
    scenes = folder / "scenes"
    for scene in ("alike", "unlike", "unset", "failing"):
        tables(scenes / scene / "0")
    tables(scenes / "alike" / "1")
    tables(scenes / "failing" / "1")
    tables(scenes / "unlike" / "1", threshold=48)
    (scenes / "failing" / "1 fails").touch()
    (scenes / "unset" / "impatient").touch()
    done = subprocess.run(
        [sys.executable, RANKS, folder],
        capture_output=True,
        text=True,
        timeout=240,
        # Also what pytest has put on the path of this process.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    files = [folder / f"told by {rank}.json" for rank in range(2)]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def test_ranks_with_the_same_tables_are_tuned(told: Any) -> None:
    for rank in told:
        assert rank["alike"]["decodes"] == 1
        assert rank["alike"]["cap"] == 8
        assert rank["alike"]["errors"] == []


@pytest.mark.parametrize("scene", ["unlike", "unset", "failing"])
def test_ranks_that_differ_all_run_untuned(told: Any, scene: str) -> None:
    for rank in told:
        assert rank[scene]["decodes"] == UNTUNED_DECODES
        assert rank[scene]["cap"] == VLLMS_CAP


@pytest.mark.parametrize("scene", ["alike", "unlike", "unset", "failing"])
def test_all_ranks_order_their_rows_alike(told: Any, scene: str) -> None:
    """Model runner V1's order: an all-reduce adds the rows of the ranks one by one."""
    assert told[0][scene]["order"] == told[1][scene]["order"]


def test_what_differs_is_said_once_on_each_rank(told: Any) -> None:
    for rank in told:
        (error,) = rank["unlike"]["errors"]
        assert "all ranks run untuned" in error
        assert "MLA_TUNE_TABLES holds" in error
    (error,) = told[0]["unset"]["errors"]
    assert "rank 1 did not say anything" in error
    (error,) = told[0]["failing"]["errors"]
    assert "failed with RuntimeError: no such luck" in error
