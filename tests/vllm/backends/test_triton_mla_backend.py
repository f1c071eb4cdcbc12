import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mla_tune.measuring.recording import Recording
from mla_tune.plan.bounds import outside
from mla_tune.plan.launch import LAUNCH_KNOBS
from mla_tune.plan.plan import Plan
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, MlaDimensions
from mla_tune.vllm import compat
from mla_tune.vllm.backend import FrozenSplits
from mla_tune.vllm.backends.triton_mla import BACKEND, filling_splits

H200_SMS = 132


@pytest.fixture(autouse=True)
def _release(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.26.0 and its split rule, without vLLM."""
    rule = SimpleNamespace(_compute_num_kv_splits=lambda n, sms: min(max(1, n // 512), 2 * sms))
    monkeypatch.setattr(compat, "release", lambda: (0, 26, 0))
    monkeypatch.setattr(compat, "module", lambda _: rule)


def refused(plan: Plan, sm_count: int | None = H200_SMS) -> list[tuple[str, str]]:
    return list(outside(BACKEND.bounds, plan, sm_count))


def test_no_more_splits_than_vllms_formula_gives_on_the_gpu() -> None:
    assert refused(Plan(num_kv_splits=264)) == []
    assert refused(Plan(num_kv_splits=265)) == [("num_kv_splits", "1 to 264")]
    assert refused(Plan(num_kv_splits=0)) == [("num_kv_splits", "1 to 264")]
    assert refused(Plan(num_kv_splits=512), sm_count=None) == []


def test_tiles_are_powers_of_two_of_16_or_more() -> None:
    assert refused(Plan(block_n=64, block_h=16, num_warps=8, num_stages=1)) == []
    wrong = Plan(block_n=48, block_h=8, num_warps=3, num_stages=0)
    assert refused(wrong) == [
        ("block_n", "16 or 32 or 64 or 128 or 256"),
        ("block_h", "16 or 32 or 64 or 128"),
        ("num_warps", "1 or 2 or 4 or 8 or 16"),
        ("num_stages", "1 to 5"),
    ]


def test_it_is_not_captured_before_0_22_1(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BACKEND.modes == ("eager", "graph")
    monkeypatch.setattr(compat, "release", lambda: (0, 20, 2))
    assert BACKEND.modes == ("eager",)
    reason = BACKEND.supports("graph", BatchShape.parse("q1s1k"))
    assert reason is not None
    assert "not captured" in reason


def test_it_has_a_threshold_from_0_32_on(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = BatchShape.parse("8q2s1k")
    assert BACKEND.knobs == ("num_kv_splits", "prefill_backend", *LAUNCH_KNOBS)
    assert BACKEND.supports("graph", BatchShape.parse("8q1s1k")) is None
    assert BACKEND.supports("graph", pair) is not None
    monkeypatch.setattr(compat, "release", lambda: (0, 32, 0))
    assert BACKEND.knobs[:3] == ("reorder_batch_threshold", "num_kv_splits", "prefill_backend")
    assert BACKEND.supports("graph", pair) is None


def test_the_workspace_that_vllm_reserves_counts() -> None:
    """1024 sequences, 16 heads, 256 splits: 8 GiB of partial results."""
    setup = Setup("TRITON_MLA", MlaDimensions(16), max_num_requests=1024)
    estimate = BACKEND.estimate_bytes(setup, [BatchShape.parse("8q1s1k")])
    assert 8 * 2**30 < estimate < 8.5 * 2**30


def test_the_lengths_of_a_workload_share_workspace_and_cache() -> None:
    """Six lengths of one request once "needed" six workspaces of 512 requests, 194.6 GiB."""
    setup = Setup("TRITON_MLA", MlaDimensions(128), mode="graph", max_num_requests=512)
    lengths = [BatchShape.parse(f"q1s{kv_len}") for kv_len in ("1k", "4k", "16k", "64k", "128k")]
    alone, together = (BACKEND.estimate_bytes(setup, some) for some in (lengths[-1:], lengths))
    assert 32 * 2**30 < alone < together < alone + 2**27


@pytest.mark.parametrize(("here", "carries"), [(131072, True), (262144, True), (16384, False)])
def test_splits_carry_over_where_the_default_is_no_nearer(here: int, carries: bool) -> None:
    assert BACKEND.splits is not None
    assert BACKEND.splits.carry_over(FrozenSplits(8, 131072, here, H200_SMS)) is carries


def test_filling_splits_are_the_best_of_all_that_were_measured() -> None:
    """Ten batch sizes, 33 counts each, on an H100: by the mean of the logs over four KV lengths."""
    path = Path(__file__).parents[2] / "data/h100/graph_triton_mla_splits.jsonl.gz"
    gains = []
    for track in Recording.load(path).tracks:
        medians = {
            int(plan["num_kv_splits"]): np.log(np.median(rounds, axis=0))
            for plan, rounds in track.rounds.items()
        }
        default = medians[int(track.plans[0]["num_kv_splits"])]
        held = {n: logs.mean() for n, logs in medians.items() if (logs < default + 0.01).all()}
        rows = track.workload.shapes[0].num_query_tokens
        powers = {n for n in held if n.bit_count() == 1}
        tried = powers | set(filling_splits(rows, sm_count=H200_SMS, num_q_heads=16))
        best = min(held[n] for n in tried & held.keys())
        assert best < min(held.values()) + 0.001
        gains.append(min(held[n] for n in powers) - best)
    assert len(gains) == 10
    assert math.exp(np.mean(gains)) == pytest.approx(1.044, abs=5e-4)
    assert math.exp(max(gains)) == pytest.approx(1.169, abs=5e-4)


def test_another_triton_is_another_table() -> None:
    assert BACKEND.packages([]) == {"triton"}
    assert BACKEND.packages([Plan(prefill_backend="trtllm")]) == {"triton", "flashinfer"}
    assert BACKEND.packages([Plan(prefill_backend="fa3")]) == {"triton"}
