"""Thresholds in the installed vLLM's sparse backends, in a process of its own on the CPU."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM"),
]
NAMES = ("FLASHMLA_SPARSE", "FLASH_ATTN_MLA_SPARSE")
# vLLM's own threshold is 128, the top-k is 128 tokens.
PLANS = {
    "2q16s100": {"reorder_batch_threshold": 1},
    "q16s100": {"reorder_batch_threshold": 1, "prefill_backend": "fa2"},
    "2q8s128": {"reorder_batch_threshold": 1},
}
LOWERED, ELSEWHERE, PAST, BEYOND, MIXED = SPECS = (
    "2q16s100",
    "2q4s100",  # has no entry
    "2q8s136",  # in the entry's bucket, but not within the top-k as the entry is
    "q8s200_q12s100",
    "q8s100_q12s100",
)
OTHER_PREFILL = "q16s100"


@pytest.fixture(scope="module")
def told() -> Any:
    """What happened in each backend; another process would import vLLM once more."""
    here = Path(__file__)
    script = str(here.with_name("sparse_steps.py"))
    # Also what pytest has put on the path of this process.
    path = os.pathsep.join([str(here.parents[1] / "session"), *sys.path])
    done = subprocess.run(
        [sys.executable, script, json.dumps(PLANS), *SPECS, OTHER_PREFILL],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("REPORT")]
    assert lines, done.stderr[-4000:]
    return json.loads(lines[-1].removeprefix("REPORT"))


@pytest.fixture(params=NAMES)
def one(request: pytest.FixtureRequest, told: Any) -> Any:
    return told[request.param]


def test_a_lower_threshold_sends_its_step_to_the_dense_prefill(one: Any) -> None:
    step = one["steps"][LOWERED]
    assert (step["decodes"], step["prefills"], step["kernels"]) == (0, 2, ["dense fa3"])
    assert (one["verified"], one["not_applied"], one["fallbacks"]) == (2, 0, 0)


def test_the_prefill_backend_is_the_tables_too(one: Any) -> None:
    assert one["steps"][OTHER_PREFILL]["kernels"] == ["dense fa2"]


@pytest.mark.parametrize("spec", [ELSEWHERE, PAST])
def test_what_no_entry_speaks_for_is_divided_as_by_vllm(one: Any, spec: str) -> None:
    step = one["steps"][spec]
    assert (step["decodes"], step["prefills"], step["kernels"]) == (2, 0, ["top-k"])


def test_a_mixed_step_gets_the_single_threshold_if_all_attend_densely(one: Any) -> None:
    assert (one["own"], one["mixed"]) == (128, 1)
    assert one["steps"][MIXED]["kernels"] == ["dense fa3"]
    # One longer context, and vLLM lets the others attend by the top-k with it.
    assert one["steps"][BEYOND]["decodes"] > 0


def test_the_results_are_those_of_the_reference(one: Any) -> None:
    assert max(step["apart"] for step in one["steps"].values()) < 0.02


def test_the_builders_threshold_is_vllms_between_any_two_builds(one: Any) -> None:
    assert {step["own_after"] for step in one["steps"].values()} == {128}


def test_the_indexer_divides_for_itself(one: Any) -> None:
    """By 1, where the attention's own threshold is 128 and the table's are 1: all are prefills."""
    assert [decodes for decodes, _ in one["indexer"]] == [0] * len(one["indexer"])


def test_engines_that_no_table_is_for_are_told_why(one: Any) -> None:
    refused = one["refused"]
    assert refused.pop("as it is") is None
    assert {field: said.split()[0] for field, said in refused.items()} == {
        "speculative_config": "sparse",
        "decode_context_parallel_size": "under",
        "hisparse_config": "with",
        "sparse_mla_force_mqa": "sparse_mla_force_mqa",
    }
