"""Ragged batches."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.shapes import BatchShape
from mla_tune.shapes.ragged import (
    GRAIN,
    MOST_GROUPS,
    RaggedMix,
    RaggedSpec,
    log_normal,
    longest_of,
    one_long,
    with_longest,
)

requests = st.integers(2, 600)
sigmas = st.floats(0.1, 2.0)


@given(requests, st.integers(1, 8), st.integers(1, 4096), sigmas, st.integers(64, 131072))
def test_a_batch_has_its_requests_within_bounds(count, query_len, mean_kv, sigma, most):
    shape = log_normal(count, query_len, mean_kv, sigma, max(most, query_len))
    assert shape.num_requests == count
    assert shape.query_lens == (query_len,)
    assert len(shape.groups) <= MOST_GROUPS
    assert shape.max_kv_len <= max(most, query_len)
    assert BatchShape.parse(str(shape)) == shape


@given(requests, st.integers(512, 65536), sigmas)
def test_unbounded_it_has_the_mean_that_was_asked_for(count, mean_kv, sigma):
    shape = log_normal(count, 1, mean_kv, sigma, 10**8)
    # Rounded to blocks of 16.
    assert shape.num_kv_tokens / count == pytest.approx(mean_kv, abs=16)


def test_the_longest_stands_where_the_distribution_has_it():
    shape = log_normal(128, 1, 4096, 1.0, 131072)
    # exp(2.66 sigma) over the mean, exp(sigma^2 / 2), which 128 middles fall short of.
    assert 131072 > shape.max_kv_len > 8 * 4096
    assert shape.max_kv_len / 4096 == pytest.approx(math.exp(2.66 - 0.5), rel=0.05)
    assert log_normal(128, 1, 4096, 0.5, 131072).max_kv_len < 4 * 4096


def test_a_wider_distribution_has_a_longer_longest():
    longest = [log_normal(32, 1, 4096, sigma, 10**8).max_kv_len for sigma in (0.2, 0.6, 1.0, 1.5)]
    assert longest == sorted(set(longest))


def test_one_long_request_among_short_ones():
    assert str(one_long(8, 1, 131072, 1024)) == "q1s128k_7q1s1k"
    assert str(one_long(3, 2, 4096, 4096)) == "3q2s4k"


@st.composite
def with_a_longest(draw):
    """Requests, query length, mean and longest of a batch that there can be."""
    count, query_len = draw(requests), draw(st.sampled_from([1, 1, 2, 8, 40]))
    mean = query_len + draw(st.integers(1, 100_000))
    most = longest_of(count, query_len, mean)
    return count, query_len, mean, draw(st.one_of(st.integers(mean, most), st.just(most)))


@given(with_a_longest())
def test_a_batch_has_the_mean_and_the_longest_that_were_asked_for(asked):
    count, query_len, mean, longest = asked
    shape = with_longest(*asked)
    assert (shape.num_requests, shape.query_lens) == (count, (query_len,))
    assert shape.max_kv_len == longest
    assert abs(shape.num_kv_tokens - count * mean) <= count * GRAIN / 2
    assert min(group.kv_len for group in shape.groups) > query_len
    assert len(shape.groups) <= MOST_GROUPS
    assert BatchShape.parse(str(shape)) == shape == with_longest(*asked)


def test_a_longest_request_says_how_the_others_are_spread():
    assert str(with_longest(8, 1, 1024, 4096)) == (
        "q1s4k_q1s1664_q1s960_q1s608_q1s400_q1s256_q1s144_q1s64"
    )
    assert str(with_longest(8, 1, 1024, 8 * 1022 + 2)) == "q1s8178_7q1s2"
    assert str(with_longest(8, 4, 1024, 1024)) == "8q4s1k"


def test_what_is_known_of_a_size_is_of_its_requests_and_query_length():
    specs = (RaggedSpec(8, 1, 1024, 4096, 0.5), RaggedSpec(8, 4, 1024, 2048, 0.25))
    mix = RaggedMix(specs=specs)
    assert mix.of_size(8, 4) == [specs[1]]
    assert mix.of_size(16, 1) == []
    assert mix.sizes == [(8, 1), (8, 4)]
    assert mix.up_to(8192) == mix
    assert mix.up_to(8191).specs == ()
