from mla_tune.cli.columns import in_columns

TITLES = ("shape", "plan", "time", "tied plans")
PLAN = "reorder_batch_threshold=4 num_kv_splits=16 prefill_backend=flashinfer block_n=64"
ROWS = [
    ("32q1s{1k,4k,16k}", PLAN, "23.1 µs → 14.2 µs", "0"),
    ("q1s1k", "default", "1.20 ms", "12"),
]


def test_without_a_width_a_row_is_a_line():
    lines = in_columns(TITLES, ROWS, 2)
    assert len(lines) == 4
    assert PLAN in lines[2]


def test_within_a_width_cells_are_folded_between_words():
    lines = in_columns(TITLES, ROWS, 2, 64)
    assert max(map(len, lines)) <= 64
    words = {word for line in lines for word in line.split()}
    assert {*PLAN.split(), *ROWS[0][0].split(), "default"} <= words
    assert any("14.2 µs" in line for line in lines)
    assert lines[0].split() == ["shape", "plan", "time", "tied"]


def test_what_fits_is_left_as_it_is():
    assert in_columns(TITLES, ROWS[1:], 2, 80) == in_columns(TITLES, ROWS[1:], 2)


def test_a_word_longer_than_the_width_stays_whole():
    lines = in_columns(("plan",), [("reorder_batch_threshold=4 num_kv_splits=16",)], 1, 10)
    assert [line.strip() for line in lines[2:]] == ["reorder_batch_threshold=4", "num_kv_splits=16"]


def test_characters_of_two_cells_count_as_such():
    lines = in_columns(("a", "b"), [("東京", "x"), ("ab", "y"), ("é", "z")], 1)
    assert lines[2:] == ["東京  x", "ab    y", "é     z"]
