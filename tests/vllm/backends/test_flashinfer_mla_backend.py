"""FLASHINFER_MLA's kernel, over a made-up module of vLLM's and over the real packages."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mla_tune.errors import UnavailableError
from mla_tune.plan.bounds import outside
from mla_tune.plan.knob import KNOBS
from mla_tune.plan.plan import Plan
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, MlaDimensions
from mla_tune.vllm import compat
from mla_tune.vllm.backends.flashinfer_mla import (
    AUTO,
    BACKEND,
    CUTE_DSL,
    KNOB,
    LAUNCH,
    SELECT,
    TRTLLM_GEN,
    DecodeKernel,
    TunedDecode,
    has_both,
    most_partial_bytes,
)
from mla_tune.vllm.session.rules import SessionRules

BATCH = [BatchShape.parse("8q1s4k")]
EVERY = (AUTO, TRTLLM_GEN, CUTE_DSL)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """vLLM's module: FlashInfer's function, which tells what it was called with."""

    def decode(query: str, backend: str = AUTO, **more: Any) -> tuple[str, str, dict[str, Any]]:
        return query, backend, more

    def select(num_heads: int) -> str | None:
        return CUTE_DSL if num_heads % min(num_heads, 64 if num_heads > 32 else 16) else None

    found = SimpleNamespace(**{LAUNCH: decode, SELECT: select})
    monkeypatch.setattr(compat, "module", lambda _: found)
    return found


def knob_of(heads: int = 128, mode: str = "graph", rank: int = 512) -> DecodeKernel:
    setup = Setup("FLASHINFER_MLA", MlaDimensions(heads, kv_lora_rank=rank), mode=mode)
    knob = BACKEND.kernel_knobs(setup, None, None)[KNOB]
    assert isinstance(knob, DecodeKernel)
    return knob


def refused(value: str) -> list[str]:
    return [valid for _, valid in outside(BACKEND.bounds, Plan(decode_kernel=value), 148)]


def test_its_knobs_and_their_bounds() -> None:
    assert BACKEND.knobs == ("reorder_batch_threshold", "prefill_backend", KNOB)
    assert [refused(kernel) for kernel in EVERY] == [[], [], []]
    assert refused("xqa") == ["auto, trtllm-gen, cute-dsl"]
    assert BACKEND.setting(KNOBS[KNOB]) is None


@pytest.mark.usefixtures("module")
def test_where_there_is_a_choice_both_are_tried_beside_flashinfers_own() -> None:
    for heads in (16, 64, 128):
        assert (knob_of(heads).default(BATCH), knob_of(heads).values(BATCH)) == (AUTO, EVERY)


@pytest.mark.usefixtures("module")
def test_where_there_is_none_the_knob_is_idle() -> None:
    assert knob_of(96).values(BATCH) == (knob_of(96).default(BATCH),) == (CUTE_DSL,)
    assert knob_of(192).values(BATCH) == (AUTO,)  # too many for cute-dsl
    assert knob_of(128, rank=256).values(BATCH) == (AUTO,)
    assert knob_of(128, mode="eager").values(BATCH) == (AUTO,)
    assert not has_both(128, 512, 32)


@pytest.mark.usefixtures("module")
def test_the_plans_of_a_workload() -> None:
    for heads, plans in ((128, [Plan(decode_kernel=kernel) for kernel in EVERY]), (96, [Plan()])):
        rules = SessionRules("graph", 1, False, False, (), {KNOB: knob_of(heads)})
        assert list(rules.plan_space(BATCH).plans) == plans


def test_a_release_without_the_choice_has_no_such_knob(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup("FLASHINFER_MLA", MlaDimensions(128))
    delattr(module, SELECT)
    assert not BACKEND.kernel_knobs(setup, None, None)
    assert not isinstance(getattr(module, LAUNCH), TunedDecode)

    def missing(_: str) -> None:
        raise UnavailableError("no such module")

    monkeypatch.setattr(compat, "module", missing)
    assert not BACKEND.kernel_knobs(setup, None, None)


def test_a_kernel_is_named_with_the_call_and_what_was_there_is_back(module: Any) -> None:
    knob = knob_of()
    decode = getattr(module, LAUNCH)
    buffers = {"multi_ctas_kv_counter_buffer": "counter"}
    with knob.observe() as seen:
        for kernel in EVERY:
            with knob.set(kernel):
                query, backend, more = decode("query", **buffers)
            assert (query, backend) == ("query", kernel)
            # FlashInfer refuses the buffer beside cute-dsl.
            assert more == ({} if kernel == CUTE_DSL else buffers)
        assert decode("query", **buffers) == ("query", AUTO, buffers)
    assert seen == [*EVERY, AUTO]
    with pytest.raises(RuntimeError), knob.set(CUTE_DSL):
        raise RuntimeError
    assert decode("query") == ("query", AUTO, {})


def test_a_kernel_that_vllm_names_stays(module: Any) -> None:
    knob = knob_of()
    with knob.set(TRTLLM_GEN), knob.observe() as seen:
        assert getattr(module, LAUNCH)("query", backend=CUTE_DSL) == ("query", CUTE_DSL, {})
    assert seen == [CUTE_DSL]


def test_it_is_installed_once(module: Any) -> None:
    first, second = TunedDecode.of_vllm(), TunedDecode.of_vllm()
    assert first is second is getattr(module, LAUNCH)


def test_partial_results_of_one_query_length_never_need_what_vllm_has() -> None:
    vllms_bytes = 128 * 2**20
    for heads in (1, 8, 64, 128):
        for requests in (1, 2, 7, 64, 512):
            for query_len in (1, 2, 4, 16):
                needed = most_partial_bytes(
                    requests,
                    query_len,
                    requests * query_len,
                    num_heads=heads,
                    kv_lora_rank=512,
                    sm_count=160,
                )
                assert needed <= vllms_bytes


def test_ragged_queries_may_need_more() -> None:
    """A tile for each 128 rows of the longest, split as if there were no more than the tokens."""
    needed = most_partial_bytes(4, 16, 4, num_heads=128, kv_lora_rank=512, sm_count=148)
    assert needed == 4 * 16 * 128 * (148 // 8) * 513 * 4 > 128 * 2**20


@pytest.mark.vllm
def test_the_packages_take_what_is_named() -> None:
    """vLLM's and FlashInfer's own Python, up to where a kernel would be launched."""
    pytest.importorskip("vllm")
    script = str(Path(__file__).parent / "flashinfer_contract.py")
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=300,
        env=dict(os.environ),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout.split("REPORT")[-1])
    assert report == {
        "auto": [AUTO, TRTLLM_GEN],
        "trtllm-gen": [TRTLLM_GEN, TRTLLM_GEN],
        "cute-dsl": [CUTE_DSL, CUTE_DSL],
        "ragged auto": [AUTO, TRTLLM_GEN],
        "ragged trtllm-gen": [TRTLLM_GEN, TRTLLM_GEN],
        "ragged cute-dsl": [CUTE_DSL, CUTE_DSL],
    }
