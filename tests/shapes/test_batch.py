import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.errors import InputError
from mla_tune.shapes import (
    BatchShape,
    RequestGroup,
    Workload,
    format_size,
    parse_size,
)


@st.composite
def request_groups(draw):
    query_len = draw(st.integers(1, 9000))
    kv_len = query_len + draw(st.integers(0, 300_000))
    return RequestGroup(query_len, kv_len, draw(st.integers(1, 600)))


batch_shapes = st.lists(request_groups(), min_size=1, max_size=5).map(BatchShape.of)
grammar_text = st.text(alphabet="0123456789qsk_{},- ", max_size=30)


def refusal_of(read, *arguments):
    """The InputError that reading ends in, if it does."""
    try:
        read(*arguments)
    except InputError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("spec", "groups"),
    [
        ("q2k", [RequestGroup(2048, 2048, 1)]),
        ("8q1s1k", [RequestGroup(1, 1024, 8)]),
        ("2q2k_32q1s1k", [RequestGroup(2048, 2048, 2), RequestGroup(1, 1024, 32)]),
        ("16q4s1k", [RequestGroup(4, 1024, 16)]),
        ("q1ks2k", [RequestGroup(1024, 2048, 1)]),
        ("q5s7", [RequestGroup(5, 7, 1)]),
    ],
)
def test_reads_vllms_grammar(spec, groups):
    assert list(BatchShape.parse(spec).groups) == groups


@given(batch_shapes)
def test_what_is_written_reads_back_the_same(shape):
    assert BatchShape.parse(str(shape)) == shape


@given(batch_shapes)
def test_the_canonical_form_is_its_own(shape):
    assert str(BatchShape.parse(str(shape))) == str(shape)


@given(st.lists(request_groups(), min_size=1, max_size=4), st.randoms())
def test_the_order_of_groups_does_not_matter(groups, random):
    shuffled = random.sample(groups, len(groups))
    assert BatchShape.of(shuffled) == BatchShape.of(groups)


def test_equal_groups_are_joined():
    assert str(BatchShape.parse("2q1s1k_3q1s1024")) == "5q1s1k"


@given(st.one_of(st.text(max_size=40), grammar_text))
def test_any_text_is_read_or_refused_but_never_crashes(text):
    for read in (BatchShape.parse, Workload.parse, parse_size):
        refused = refusal_of(read, text)
        assert refused is None or refused.valid


@pytest.mark.parametrize("text", ["q" + "9" * 5000, "9" * 5000 + "q1", "q1s" + "9" * 5000])
def test_a_number_of_absurd_length_is_refused(text):
    with pytest.raises(InputError):
        BatchShape.parse(text)
    with pytest.raises(InputError):
        parse_size("9" * 5000)


def test_more_requests_than_a_spec_can_write_are_refused():
    with pytest.raises(InputError, match="has 1999999998 requests"):
        BatchShape.parse("999999999q1_999999999q1")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("8q1s1k_oops", "'oops' cannot be read"),
        ("0q1s1k", "zero"),
        ("q0", "zero"),
        ("q1s0", "zero"),
        ("q2k_q64s32", "KV length 32 below its query length 64"),
        ("-1q1", "'-1q1' cannot be read"),
        ("", "cannot be read"),
        ("q١", "cannot be read"),
    ],
)
def test_a_bad_spec_says_what_is_wrong(spec, says):
    with pytest.raises(InputError) as caught:
        BatchShape.parse(spec)
    assert says in caught.value.what
    assert "joined by '_'" in caught.value.valid


def test_a_bad_spec_points_at_the_segment():
    with pytest.raises(InputError) as caught:
        BatchShape.parse("8q1s1k_oops_q4")
    _, text, pointer = caught.value.what.splitlines()
    assert text[pointer.index("^") : pointer.rindex("^") + 1] == "oops"


@given(st.integers(1, 10**8))
def test_sizes_read_back(tokens):
    assert parse_size(format_size(tokens)) == tokens
    assert parse_size(format_size(tokens).upper()) == tokens


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "4m", "k", "", True, None, "1e3"])
def test_a_bad_length_is_refused(text):
    with pytest.raises(InputError, match="above 0"):
        parse_size(text)


def test_totals():
    shape = BatchShape.parse("2q2k_32q1s1k")
    assert shape.num_requests == 34
    assert shape.num_query_tokens == 2 * 2048 + 32
    assert shape.num_kv_tokens == 2 * 2048 + 32 * 1024
    assert shape.query_lens == (1, 2048)
    assert (shape.max_query_len, shape.max_kv_len) == (2048, 2048)
    assert not shape.is_uniform
    assert not shape.is_pure_prefill
    assert BatchShape.parse("2q2k").is_pure_prefill


@given(batch_shapes)
def test_requests_with_context_stand_first_and_shortest_queries_ahead(shape):
    kinds = [(query_len == kv_len, query_len, kv_len) for query_len, kv_len in shape.requests()]
    # One comparison a pair: pytest explains unequal lists of thousands for minutes.
    assert all(one <= other for one, other in itertools.pairwise(kinds))
    assert len(kinds) == shape.num_requests
    assert sum(query_len for _, query_len, _ in kinds) == shape.num_query_tokens
