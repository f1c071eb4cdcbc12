"""Strings as Plotly draws them."""

from hypothesis import given
from hypothesis import strategies as st

from mla_tune.report.labels import labelled


@given(st.text() | st.sampled_from(["<b>x</b>", "&lt;", '<a href="javascript:1">x</a>', "a & b"]))
def test_no_string_is_markup(text):
    shown = labelled({"y": [text], "meta": {"gpu": text}})
    assert not set(shown["y"][0]) & set("<>")
    # Plotly turns entities into what they stand for.
    assert shown["y"][0].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == text
    assert shown["meta"]["gpu"] == text


def test_numbers_and_their_absence_stay():
    assert labelled([1.5, None, True]) == [1.5, None, True]
