import random

import pytest

from mla_tune.plan.cut import TiledSplits
from mla_tune.table.waves import WaveModel
from mla_tune.tuning.wave_fit import FEWEST_POINTS, Point, fit, prove, proven

CUTTER = TiledSplits(sm_count=132, num_q_heads=16)
TRUTH = WaveModel(
    CUTTER,
    3,
    {"launch": 20.0, "block": 0.02, "split": 0.3, "wave_token": 0.1, "shared_wave_token": 0.03},
)


def measured(noise=0.0, seed=0):
    draw = random.Random(seed)
    found = []
    for batch in (1, 3, 16, 40, 72, 150, 256):
        for kv_len in (512, 2048, 8192):
            latency_us = {
                value: TRUTH.latency_us(batch, kv_len, value) * draw.gauss(1, noise)
                for value in (1, 2, 4, 8, 16, 32, 64)
            }
            found.append(Point(batch, kv_len, kv_len // 512, latency_us))
    return found


def test_a_model_is_found_again_with_its_slots():
    model = fit(measured(), CUTTER)
    assert model.slots == TRUTH.slots
    for point in (7, 1000), (100, 5000), (256, 777):
        for value in 1, 8, 64:
            assert model.latency_us(*point, value) == pytest.approx(
                TRUTH.latency_us(*point, value), rel=2e-3
            )


def test_the_same_points_in_another_order_are_the_same_model():
    points = measured(noise=0.01)
    again = random.Random(1).sample(points, len(points))
    assert fit(again, CUTTER) == fit(points, CUTTER)


def test_the_error_grows_with_the_noise_of_the_points():
    quiet = prove(measured(noise=0.002), CUTTER).error.at(100.0)
    assert 0 < quiet < 0.02
    assert prove(measured(noise=0.05), CUTTER).error.at(100.0) > 2 * quiet


def test_a_point_unlike_all_others_is_seen_when_it_is_left_out():
    points = measured()
    odd = points[10]
    slow = {value: us * (1 if value == odd.default else 3) for value, us in odd.latency_us.items()}
    points[10] = Point(odd.batch, odd.kv_len, odd.default, slow)
    (error,) = [each for each in prove(points, CUTTER).left_out if each.error > 1]
    assert error.error == pytest.approx(2.0, abs=0.3)


def test_too_few_points_prove_nothing():
    assert proven(measured()[: FEWEST_POINTS - 1], CUTTER, 1.01) is None
    model, proof = proven(measured()[:FEWEST_POINTS], CUTTER, 1.01)
    assert model.error == proof.error
    assert model.values == dict.fromkeys((1, 2, 4, 8, 16, 32, 64), 512)


def test_a_proven_model_knows_what_was_measured():
    points = [point for point in measured() if point.batch < 100 or point.kv_len < 8192]
    model, _ = proven(points, CUTTER, 1.01)
    assert model.smallest == (1, 512)
    assert model.largest == [(72, 8192), (256, 2048)]
