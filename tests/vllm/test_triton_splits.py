# ruff: noqa: ARG005
"""How TRITON_MLA is asked for a split count, whatever vLLM's rule is."""

from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.errors import UnavailableError
from mla_tune.shapes import BatchShape
from mla_tune.vllm import compat
from mla_tune.vllm.backends.triton_mla import TritonSplits, filling_splits
from mla_tune.vllm.triton_splits import SplitRule, still_better

H200_SMS = 132


def rule_of(monkeypatch, release, **functions):
    monkeypatch.setattr(compat, "release", lambda: release)
    monkeypatch.setattr(compat, "module", lambda name: SimpleNamespace(**functions))
    return SplitRule.of_vllm(H200_SMS)


@pytest.mark.parametrize(
    ("max_seq_len", "splits"),
    [(1, 1), (1023, 1), (1024, 2), (4096, 8), (65536, 128), (131072, 256), (10**6, 264)],
)
def test_the_rule_of_0_20_is_written_out(monkeypatch, max_seq_len, splits):
    assert rule_of(monkeypatch, (0, 20, 2)).splits(max_seq_len) == splits


def test_a_power_of_two_can_be_asked_for(monkeypatch):
    rule = rule_of(monkeypatch, (0, 20, 2))
    assert rule.counts == (1, 2, 4, 8, 16, 32, 64, 128, 256, 264)
    for splits in rule.counts:
        assert rule.splits(rule.length_for(splits)) == splits


def test_only_what_the_rule_gives_can_be_asked_for(monkeypatch):
    rule = rule_of(monkeypatch, (0, 20, 2))
    assert rule.length_for(6) is None
    assert rule.length_for(512) is None


@given(
    st.integers(1, 4096),
    st.integers(1, 4),
    st.integers(1, 400),
    st.sampled_from([lambda n: n, lambda n: 1 << (n - 1).bit_length(), lambda n: n // 3 + 1]),
)
def test_a_changed_rule_changes_the_answer(work, occupancy, sm_count, rounded):
    """Another share of work, bound or rounding: what is reported still gives that count."""

    def compute(max_seq_len, sms):
        return min(rounded(max(1, max_seq_len // work)), occupancy * sms)

    rule = SplitRule(compute, sm_count)
    for splits in range(1, 300):
        length = rule.length_for(splits)
        assert length is None or compute(length, sm_count) == splits
    for room in (1, 7, 64, 1000):
        most = rule.most_within(room)
        assert most in rule.counts
        assert most <= room or most == rule.counts[0]


def any_count_of(monkeypatch, **functions) -> tuple[SplitRule, SimpleNamespace]:
    module = SimpleNamespace(**functions)
    monkeypatch.setattr(compat, "release", lambda: (0, 33, 0))
    monkeypatch.setattr(compat, "module", lambda name: module)
    return SplitRule.of_any_count(H200_SMS), module


def powers(max_seq_len, sm_count):
    return min(1 << (max(1, max_seq_len // 512) - 1).bit_length(), 2 * sm_count)


@given(st.integers(1, 2**30))
def test_any_count_can_be_asked_for_and_lengths_are_vllms_to_answer(length):
    with pytest.MonkeyPatch.context() as monkeypatch:
        rule, module = any_count_of(monkeypatch, _compute_num_kv_splits=powers)
        asked = module._compute_num_kv_splits
        assert asked(length, H200_SMS) == powers(length, H200_SMS)
        for splits in range(1, 2 * H200_SMS + 1):
            reported = rule.length_for(splits)
            assert asked(reported, H200_SMS) == splits
            assert reported < 2**31
            # Without the object in its place vLLM takes its largest, which it has room for.
            assert powers(reported, H200_SMS) in {splits, 2 * H200_SMS}
    assert rule.length_for(2 * H200_SMS + 1) is None


def test_vllms_function_is_replaced_once(monkeypatch):
    _, module = any_count_of(monkeypatch, _compute_num_kv_splits=powers)
    first = module._compute_num_kv_splits
    assert SplitRule.of_any_count(H200_SMS).takes_any_count
    assert module._compute_num_kv_splits is first
    assert first.rule is powers


def test_before_0_26_there_is_no_function_to_replace(monkeypatch):
    monkeypatch.setattr(compat, "release", lambda: (0, 20, 2))
    monkeypatch.setattr(compat, "module", lambda name: SimpleNamespace())
    rule = SplitRule.of_any_count(H200_SMS)
    assert not rule.takes_any_count
    assert rule.length_for(6) is None


@given(st.integers(1, 600), st.sampled_from([8, 16, 64, 128]))
def test_counts_fill_one_or_two_waves(rows, heads):
    blocks = rows * -(-heads // 16)
    for splits in filling_splits(rows, sm_count=H200_SMS, num_q_heads=heads):
        waves = -(-blocks * splits // (2 * H200_SMS))
        assert waves <= 2
        assert blocks * (splits + 1) > waves * 2 * H200_SMS


def test_a_captured_graph_tries_what_fills_its_waves(monkeypatch):
    rule, _ = any_count_of(monkeypatch, _compute_num_kv_splits=powers)
    filling = partial(filling_splits, sm_count=H200_SMS, num_q_heads=16)
    shapes = [BatchShape.parse("24q1s1k"), BatchShape.parse("24q1s16k")]
    captured = TritonSplits(rule, 16 * 513 * 4, 131072, filling)
    assert set(captured.values(shapes)) == {1, 2, 4, 8, 11, 16, 22, 32, 64, 128, 256}
    eager = TritonSplits(rule, 16 * 513 * 4, None, filling)
    assert set(eager.values(shapes)) == {1, 2, 4, 8, 16, 32, 64, 128, 256}


def test_a_release_that_moved_its_rule_is_noticed(monkeypatch):
    with pytest.raises(UnavailableError, match="has no _compute_num_kv_splits"):
        rule_of(monkeypatch, (0, 34, 0))


def test_a_session_asks_and_offers_by_vllms_own_function(monkeypatch):
    """Twice the work a split: 1024 tokens each, and thirds beside the powers of two."""

    def compute(max_seq_len, sm_count):
        return min(max(1, max_seq_len // 1024), 3 * sm_count)

    rule = rule_of(monkeypatch, (0, 34, 0), _compute_num_kv_splits=compute)
    knob = TritonSplits(rule, bytes_per_split=16 * 513 * 4, frozen_max_seq_len=None)
    assert knob.default([BatchShape.parse("8q1s8k")]) == 8
    for splits in knob.values([BatchShape.parse("8q1s8k")]):
        metadata = SimpleNamespace(max_seq_len=8192)
        knob.stamp(metadata, splits)
        assert compute(metadata.max_seq_len, H200_SMS) == splits


@pytest.mark.parametrize(
    ("splits", "table_default", "engine_default", "better"),
    [
        (8, 256, 256, True),
        (8, 128, 256, True),  # a longer max_model_len freezes yet more splits
        (8, 256, 64, False),  # 64 may well beat 8: nobody confirmed it
        (16, 4, 2, True),
        (16, 4, 8, False),
        (4, 4, 4, True),
    ],
)
def test_a_split_is_used_only_where_it_was_proven(
    splits: int, table_default: int, engine_default: int, better: bool
) -> None:
    proven = still_better(splits, table_default=table_default, engine_default=engine_default)
    assert proven is better
