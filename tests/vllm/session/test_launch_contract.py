"""Launches of TRITON_MLA over the real vLLM, on the CPU, in a process of its own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mla_tune.vllm.triton_launch import VLLM_LAUNCH

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM"),
]

LAUNCHED = {"block_n": 64, "block_h": 32, "num_warps": 8, "num_stages": 3}


@pytest.fixture(scope="module")
def report() -> dict:
    command = [sys.executable, str(Path(__file__).parent / "launch_contract.py")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=dict(os.environ), check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("REPORT")]
    assert lines, done.stderr[-4000:]
    return json.loads(lines[-1].removeprefix("REPORT"))


def test_every_tile_computes_what_float64_does(report):
    tiles = {
        (tried["plan"].get("block_n"), tried["plan"].get("block_h")) for tried in report["tried"]
    }
    assert tiles == {(None, None), *((n, h) for n in (16, 32, 64, 128) for h in (16, 32))}
    for tried in report["tried"]:
        assert tried["finite"], tried
        assert tried["error"] < 2e-3, tried
        # The interpreter has no registers.
        assert tried["resources"] is None


def test_a_launch_has_the_plan_s_constants_and_vllms_where_there_are_none(report):
    for tried in report["tried"]:
        constants = {knob: tried["plan"].get(knob, own) for knob, own in VLLM_LAUNCH.items()}
        assert tried["seen"] == [constants]


def test_the_space_has_each_split_count_with_each_launch_after_those_of_vllms_own(report):
    own = [plan for plan in report["plans"] if "block_n" not in plan]
    assert report["plans"][: len(own)] == own
    assert len(report["plans"]) == report["assignments"] == len(own) * 48
    assert len({tuple(plan.items()) for plan in report["plans"]}) == len(report["plans"])
    # On the prefill path no decode kernel is launched.
    assert report["prefill"][0] == {"reorder_batch_threshold": 1}
    assert all(plan["reorder_batch_threshold"] == 40 for plan in report["prefill"][1:])


def test_the_interpreter_has_nothing_to_compile_ahead(report):
    assert report["compiled"] == [0, 0, 0]


def test_vllms_own_launch_is_back_within_another_plan_and_after_an_error(report):
    first, *within, last, after = report["restored"]
    assert first == last == LAUNCHED
    assert within
    assert all(launch == dict(VLLM_LAUNCH) for launch in (*within, after))


def test_a_launch_around_the_stand_in_is_found(report):
    assert report["around"].startswith("not applied: ")
    assert "kernel launches with other kernels" in report["around"]
