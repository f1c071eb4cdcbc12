import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mla_tune.measuring.stopwatch import Samples
from mla_tune.table import Speedup
from mla_tune.tuning.speedups import expected_us, p_value, speedup_of, ties_with


def test_expected_latency_weighs_the_medians_of_the_cases():
    samples = Samples(((1.0, 10.0), (2.0, 20.0), (90.0, 30.0)))
    assert expected_us(samples, [0.25, 0.75]) == 0.25 * 2.0 + 0.75 * 20.0


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=40))
def test_an_interval_holds_its_median(log_ratios):
    speedup = speedup_of(np.asarray(log_ratios))
    assert 0 < speedup.low <= speedup.median * (1 + 1e-9)
    assert speedup.median <= speedup.high * (1 + 1e-9)


def test_intervals_tie_when_they_overlap_or_nearly():
    winner = Speedup(median=1.2, low=1.15, high=1.25)
    for high, ties in ((1.16, True), (1.14, True), (1.13, False)):
        assert ties_with(Speedup(median=1.1, low=1.05, high=high), winner) == ties


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    dice = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        speedup = speedup_of(dice.normal(0.1, 0.03, 48))
        held += speedup.low <= np.exp(0.1) <= speedup.high
    assert held >= 180


@given(
    st.lists(st.integers(-3, 3), min_size=2, max_size=7).filter(any)
    | st.lists(st.floats(-2, 2).filter(abs), min_size=2, max_size=50, unique_by=abs),
    st.sampled_from(["greater", "less"]),
)
def test_the_p_value_is_scipys_where_that_is_exact(differences, alternative):
    found = p_value(np.asarray(differences, dtype=float), alternative)
    known = stats.wilcoxon(differences, alternative=alternative).pvalue
    assert np.isclose(found, known, rtol=1e-9)


def test_equal_samples_are_no_evidence_and_many_pairs_are_scipys():
    assert p_value(np.zeros(60), "greater") == p_value(np.zeros(3), "less") == 1.0
    many = np.random.default_rng(0).normal(0.1, 1.0, 80)
    assert p_value(many, "greater") == stats.wilcoxon(many, alternative="greater").pvalue
