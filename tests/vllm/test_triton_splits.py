# ruff: noqa: ARG005
"""How TRITON_MLA is asked for a split count, whatever vLLM's rule is."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.errors import UnavailableError
from mla_tune.shapes import BatchShape
from mla_tune.vllm import compat
from mla_tune.vllm.backends.triton_mla import TritonSplits
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
