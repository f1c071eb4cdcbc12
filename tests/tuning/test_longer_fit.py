import pytest

from mla_tune.plan.cut import ScheduledSplits
from mla_tune.table.longer import PREFILL, Extend, Paths
from mla_tune.tuning.longer_fit import LongerPoint, fit, longer

CUTTER = ScheduledSplits(132, 16)
TRUTH = Paths(
    CUTTER,
    {"launch": 20.0, "block": 0.05, "wave_token": 0.02, "partial_result": 0.01},
    {"launch": 30.0, "query_token": 0.05, "context_token": 0.004, "query_context": 1e-5},
)
THRESHOLD = 512


def measured(values=(1, 2, 8, 32)):
    found = []
    for batch in (1, 5, 20):
        for query_len in (2, 16, 100, 500):
            for kv_len in (1024, 9000):
                extend = Extend(batch, query_len, kv_len)
                # Beyond 512 query tokens a cap does not act.
                own = (*values,) if batch * query_len <= 512 else (0,)
                latency_us = {v: TRUTH.latency_us(extend, v) for v in (*own, PREFILL)}
                found.append(LongerPoint(extend, own[-1], latency_us))
    return found


def test_both_paths_are_found_again():
    paths = fit(measured(), CUTTER)
    for extend in Extend(3, 30, 5000), Extend(12, 400, 2000):
        for value in 1, 8, PREFILL:
            assert paths.latency_us(extend, value) == pytest.approx(
                TRUTH.latency_us(extend, value), rel=1e-2
            )


def test_a_model_knows_what_was_measured_and_is_proven():
    model = longer(measured(), CUTTER, THRESHOLD)
    assert (model.points, model.threshold, model.default) == (24, 512, 32)
    assert model.values == (0, 1, 2, 8, 32)
    assert model.smallest == (1, 2, 1024)
    assert model.largest == ((20, 500, 9000),)
    assert model.error < 0.02
    answers = model.model(CUTTER, 1.01, 512)
    point = max(measured()[:8], key=lambda p: p.latency_us[p.default] / p.best_us)
    answer = answers.answer(point.extend.batch, point.extend.query_len, [point.extend.kv_len])
    assert answer.gain == pytest.approx(point.latency_us[32] / point.best_us, rel=0.02)


def test_without_a_choice_for_enough_extends_there_is_no_model():
    assert longer(measured()[:8], CUTTER, THRESHOLD) is None
    assert longer(measured(), CUTTER, threshold=2) is None
