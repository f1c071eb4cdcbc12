from made_up_launches import FROZEN, Kernel, made_up
from mla_tune.plan.launch import launch_of
from mla_tune.plan.plan import Plan
from mla_tune.shapes import BatchShape

LARGE = BatchShape.parse("32q1s8k")


def best_us(kernel, shape, launches=lambda _: True):
    return min(kernel.latency_us(p, shape) for p in kernel.plans() if launches(launch_of(p)))


def test_launches_gain_most_where_there_are_many_heads():
    gains = {}
    for heads in (16, 128):
        kernel = Kernel(heads)
        own = best_us(kernel, LARGE, lambda launch: not launch)
        gains[heads] = own / best_us(kernel, LARGE)
    assert 1.0 < gains[16] < 1.2
    assert 1.7 < gains[128] < 2.6


def test_the_frozen_default_is_far_from_the_best_count():
    kernel = Kernel(16)
    default_us = kernel.latency_us(Plan(num_kv_splits=FROZEN), LARGE)
    assert default_us > 1.5 * best_us(kernel, LARGE, lambda launch: not launch)


def test_what_does_not_fit_into_shared_memory_is_left_out():
    launches = {launch_of(plan) for plan in Kernel(128).plans()}
    assert Plan(block_n=128, block_h=64, num_warps=8, num_stages=3) not in launches
    assert len(Kernel(128).plans()) > 400


def test_it_is_the_same_for_the_same_seed():
    (one,), (same,), (other,) = (
        made_up(seed, rounds=1, heads=(16,), batches=(8,)).tracks for seed in (0, 0, 1)
    )
    assert one.rounds == same.rounds
    assert one.rounds != other.rounds
