import pytest

from mla_tune.plan.cut import ScheduledSplits, TiledSplits
from mla_tune.table.waves import TERMS, Error, Length, ProvenModel, WaveModel, terms

H200 = TiledSplits(sm_count=132, num_q_heads=16)


def counted(batch, kv_len, splits, occupancy=2, cutter=H200):
    cut = cutter.cut(batch, kv_len, splits)
    counts = terms(cut, batch, kv_len, cutter.sm_count, occupancy)
    return dict(zip(TERMS, counts, strict=True))


def test_one_block_more_than_there_are_slots_is_another_wave():
    assert counted(264, 4096, 1)["wave_token"] == 4096
    assert counted(265, 4096, 1)["wave_token"] == 2 * 4096
    assert counted(133, 4096, 2)["wave_token"] == 2 * 2048


def test_blocks_share_a_multiprocessor_once_each_has_one():
    assert counted(132, 4096, 1)["shared_wave_token"] == 0
    assert counted(133, 4096, 1)["shared_wave_token"] == 4096


def test_a_scheduled_kernel_shares_no_multiprocessor_and_ends_in_a_faster_wave():
    cutter = ScheduledSplits(132, 16)
    one, two = (counted(batch, 4096, 1, cutter=cutter) for batch in (132, 132 + 33))
    assert one["shared_wave_token"] == two["shared_wave_token"] == 0
    assert (one["half_wave_token"], one["full_wave_token"]) == (4096, 4096)
    assert two["half_wave_token"] == 1.5 * 4096
    assert two["full_wave_token"] == 1.75 * 4096
    assert counted(132 + 99, 4096, 1, cutter=cutter)["half_wave_token"] == 1.75 * 4096


MODEL = WaveModel(H200, 2, {"launch": 20.0, "split": 0.25, "wave_token": 0.1})


VALUES = {1: 1024, 8: 1024, 64: 4096}


def proven(error=0.05, us=0.0):
    return ProvenModel(
        MODEL,
        Error(error, us),
        1.01,
        {1: 1024, 8: 1024, 64: 4096},
        (1, 1024),
        [(1, 8192), (64, 4096)],
    )


def test_the_fastest_value_is_answered_where_it_is_proven_to_gain():
    answer = proven().answer(1, [Length(8192, [1])])
    assert (answer.outcome, answer.value) == ("plan", 64)
    assert answer.gain == pytest.approx((20 + 0.25 + 819.2) / (20 + 16 + 12.8))


def test_a_gain_within_the_error_is_a_miss_and_none_is_the_default():
    assert proven(error=30.0).answer(1, [Length(8192, [1])]).outcome == "miss"
    assert proven(error=30.0).answer(1, [Length(8192, [64])]).outcome == "default"


def test_a_part_of_the_error_is_a_time_which_weighs_on_short_batches():
    assert Error(0.01, 2.0).at(100.0) == pytest.approx(0.03)
    short, long = [Length(1024, [1])], [Length(8192, [1])]
    assert proven(us=30.0).answer(1, long).outcome == "plan"
    answer = proven(us=300.0).answer(1, short)
    assert answer.outcome == "miss"
    assert answer.error == pytest.approx(0.05 + 300 / MODEL.latency_us(1, 1024, 8))


def test_a_value_is_not_answered_below_the_lengths_it_was_measured_at():
    assert proven().answer(1, [Length(4095, [1])]).value == 8


@pytest.mark.parametrize("point", [(65, 2048), (1, 1023), (1, 8193), (2, 8192)])
def test_beyond_what_was_measured_nothing_is_answered(point):
    assert proven().answer(point[0], [Length(point[1], [1])]).outcome == "miss"


def test_values_that_cut_alike_are_no_gain_over_the_default():
    model = WaveModel(ScheduledSplits(132, 16), 1, {"launch": 20.0, "wave_token": 0.02})
    proven = ProvenModel(model, Error(0.0), 1.01, {0: 1, 4: 1, 32: 1}, (1, 1), [(48, 4096)])
    answer = proven.answer(48, [Length(4096, [32])])
    assert (answer.outcome, answer.value, answer.gain) == ("default", None, 1.0)


def test_of_several_defaults_a_plan_has_to_beat_the_fastest():
    alone = proven().answer(1, [Length(8192, [1])])
    either = proven().answer(1, [Length(8192, [1, 8])])
    assert either.value == alone.value == 64
    assert either.gain < alone.gain
    assert proven().answer(1, [Length(8192, [1, 64])]).outcome == "default"


def test_over_a_range_the_least_gain_counts():
    ends = [Length(2048, [1]), Length(4096, [1])]
    first, last = (proven().answer(1, [end]).gain for end in ends)
    both = proven().answer(1, ends)
    assert first < last
    assert (both.value, both.gain) == (8, first)
    assert proven().answer(1, [Length(4096, [1]), Length(8192, [64])]).outcome == "default"
    assert proven().answer(1, [Length(4096, [1]), Length(8193, [1])]).outcome == "miss"
