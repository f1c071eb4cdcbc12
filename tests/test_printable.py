import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.printable import printable, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("32q1s1k: 1.5× at 36.0 µs [/x]", "32q1s1k: 1.5× at 36.0 µs [/x]"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x9b31m", r"\x9b31m"),
        ("abc\u202edef\u2028", r"abc\u202edef\u2028"),
        ("\udcff", r"\udcff"),
    ],
)
def test_what_a_terminal_acts_upon_is_escaped(text, shown):
    assert printable(text) == shown


@given(st.text(alphabet=st.characters()))
def test_any_text_becomes_one_printable_line(text):
    assert printable(text).isprintable()
    assert printable_lines(text).count("\n") == text.count("\n")
    assert all(line.isprintable() for line in printable_lines(text).split("\n"))
