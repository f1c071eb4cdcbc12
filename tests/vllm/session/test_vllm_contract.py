"""The sessions over the real vLLM, on the CPU, each in a process of its own.

They are forked from three that have imported vLLM: on the CPU itself, and as GPUs of two kinds.
"""

import importlib.util
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from mla_tune.plan.launch import LAUNCH_KNOBS

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM"),
]

HERE = Path(__file__).parent
RAGGED = "2q1s50_1q1s130"
EXTEND = "2q4s70"
MIXED = "1q8s40_2q1s50"
PREFILL = "2q40"
ALL = (RAGGED, EXTEND, MIXED, PREFILL)
CAPTURED = (RAGGED, EXTEND)
# float16 through the interpreter; bfloat16 elsewhere.
TOLERANCE = {"TRITON_MLA": 2e-3}
RUNS = [
    ("TRITON_MLA", "eager", (RAGGED, EXTEND)),
    ("TRITON_MLA", "graph", CAPTURED),
    ("FLASH_ATTN_MLA", "eager", ALL),
    ("FLASH_ATTN_MLA", "graph", CAPTURED),
    ("FLASHMLA", "eager", ALL),
    ("FLASHMLA", "graph", CAPTURED),
    ("CUTLASS_MLA", "eager", (RAGGED,)),
    ("CUTLASS_MLA", "graph", (RAGGED,)),
    ("FLASHMLA_SPARSE", "eager", (*ALL, "1q160")),
    ("FLASHMLA_SPARSE", "graph", CAPTURED),
    ("FLASH_ATTN_MLA_SPARSE", "eager", (*ALL, "1q160")),
    ("FLASH_ATTN_MLA_SPARSE", "graph", CAPTURED),
]


def pretended(name: str) -> int:
    """The compute capability's major version of the GPU that stands in; 0: none does."""
    return {"TRITON_MLA": 0, "CUTLASS_MLA": 10}.get(name, 9)


@cache
def told(major: int) -> tuple[dict[tuple, str], str]:
    """What each run on one platform says, and what all have on stderr."""
    runs = [run for run in RUNS if pretended(run[0]) == major]
    done = subprocess.run(
        [sys.executable, str(HERE / "vllm_contract.py"), str(major), json.dumps(runs)],
        capture_output=True,
        text=True,
        timeout=580,
        env=dict(os.environ),
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("REPORT")]
    said = dict(line.removeprefix("REPORT").split(" ", 1) for line in lines)
    return {runs[int(number)]: text for number, text in said.items()}, done.stderr


def report(name: str, mode: str, specs: tuple[str, ...]) -> dict:
    found, errors = told(pretended(name))
    assert (name, mode, specs) in found, errors[-4000:]
    return json.loads(found[name, mode, specs])


def results(name: str, mode: str, specs: tuple[str, ...]) -> list[dict]:
    return [result for tried in report(name, mode, specs)["shapes"].values() for result in tried]


@pytest.mark.parametrize(("name", "mode", "specs"), RUNS)
class TestEveryBackend:
    def test_all_plans_agree_with_float64(self, name, mode, specs):
        for result in results(name, mode, specs):
            assert result["finite"], result
            assert result["error"] < TOLERANCE.get(name, 1e-2), result

    def test_knobs_are_restored(self, name, mode, specs):
        found = report(name, mode, specs)
        assert found["restored"]
        assert found["restored_after_error"]

    def test_a_batch_computes_the_same_after_others_were_built(self, name, mode, specs):
        assert report(name, mode, specs)["replayed"]

    def test_block_size_is_what_the_facts_say(self, name, mode, specs):
        from mla_tune.registry import vllm_backend

        assert report(name, mode, specs)["engine"]["block_size"] == vllm_backend(name).blocks.own

    def test_knobs_are_what_the_facts_say(self, name, mode, specs):
        from mla_tune.registry import get_backend

        expected = set(get_backend(name).knobs) - set(LAUNCH_KNOBS)
        for result in results(name, mode, specs):
            assert set(result["full"]) == expected


def plans(name: str, mode: str, specs: tuple[str, ...], shape: str) -> list[dict]:
    return [result["plan"] for result in report(name, mode, specs)["shapes"][shape]]


def test_triton_splits_are_tried_and_the_default_is_the_release_s():
    tried = plans("TRITON_MLA", "eager", (RAGGED, EXTEND), "q1s130_2q1s50")
    assert tried == [{"num_kv_splits": 1}, {"num_kv_splits": 2}, {"num_kv_splits": 4}]


def test_triton_in_graph_mode_starts_from_the_splits_frozen_at_max_model_len():
    # 4096 / 512 = 8 splits, but at most two for each of the pretended SMs (CPU threads).
    tried = plans("TRITON_MLA", "graph", CAPTURED, "q1s130_2q1s50")
    assert tried[0] == {"num_kv_splits": 4}
    assert {"num_kv_splits": 1} in tried


def calls(name: str, mode: str, specs: tuple[str, ...], shape: str, **plan: object) -> list:
    for result in report(name, mode, specs)["shapes"][shape]:
        if all(result["full"][knob] == value for knob, value in plan.items()):
            return [arguments for _, arguments in result["calls"]]
    raise AssertionError(f"no plan {plan}")


def test_flash_attn_cap_reaches_the_kernel_and_its_schedule():
    for mode, specs, caps in (("eager", ALL, (32, 0, 1)), ("graph", CAPTURED, (32, 1, 2))):
        for cap in caps:
            (call,) = calls("FLASH_ATTN_MLA", mode, specs, "q1s130_2q1s50", num_kv_splits=cap)
            assert call["num_splits"] == cap
            assert call["scheduler_metadata"][2] == cap


def test_flash_attn_graph_has_the_capture_s_length_and_the_step_s_schedule():
    (call,) = calls("FLASH_ATTN_MLA", "graph", CAPTURED, "q1s130_2q1s50", num_kv_splits=32)
    assert call["max_seqlen_k"] == 4096
    assert call["scheduler_metadata"][1] == 130
    assert call["scheduler_metadata"][3:6] == [50, 50, 130]


def test_prefill_version_is_switched_per_batch_and_not_the_decode_scheduling():
    for version in (2, 3):
        made = calls(
            "FLASH_ATTN_MLA",
            "eager",
            ALL,
            "q8s40_2q1s50",
            reorder_batch_threshold=1,
            prefill_backend=f"fa{version}",
        )
        prefills = [call for call in made if not call["paged"]]
        decodes = [call for call in made if call["paged"]]
        assert {call["fa_version"] for call in prefills} == {version}
        assert [call["fa_version"] for call in decodes] == [3]
        assert decodes[0]["scheduler_metadata"] is not None


def test_threshold_moves_requests_between_the_paths():
    for result in report("FLASHMLA", "eager", ALL)["shapes"]["2q40"]:
        longest = result["full"]["reorder_batch_threshold"]
        assert result["decode_tokens"] == (80 if longest >= 40 else 0)


def test_uniform_backend_decodes_only_the_leading_query_length():
    tried = report("FLASHMLA", "eager", ALL)["shapes"]["q8s40_2q1s50"]
    assert {result["decode_tokens"] for result in tried} == {2}
    assert all("reorder_batch_threshold" not in result["plan"] for result in tried)


def test_flashmla_schedules_before_what_is_timed():
    for result in results("FLASHMLA", "graph", CAPTURED):
        assert [call[1]["scheduled"] for call in result["calls"]] == [True]


def test_cutlass_tries_its_own_choice_and_up_to_sixteen_splits():
    tried = plans("CUTLASS_MLA", "eager", (RAGGED,), "q1s130_2q1s50")
    assert [plan["num_kv_splits"] for plan in tried] == [-1, 1, 2, 4, 8, 16]
    for splits in (-1, 1, 16):
        (call,) = calls("CUTLASS_MLA", "eager", (RAGGED,), "q1s130_2q1s50", num_kv_splits=splits)
        assert call["num_splits"] == splits


def test_sparse_backends_say_where_no_knob_matters():
    specs = (*ALL, "1q160")
    for name in ("FLASHMLA_SPARSE", "FLASH_ATTN_MLA_SPARSE"):
        # Longer than the top-k: all tokens take the sparse kernel, whatever the threshold.
        assert plans(name, "eager", specs, "q160") == [{}]
        # Within it: prefills may attend densely, so threshold and prefill backend count.
        assert len(plans(name, "eager", specs, "2q40")) == 3
