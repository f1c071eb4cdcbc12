from bench_tables import Figure, questions, shapes, tuned
from mla_tune.table import Table


def test_the_shapes_differ_and_stand_in_reading_order():
    wanted = shapes(700)
    assert len(set(wanted)) == 700
    lengths = [(shape.query_lens, shape.num_requests, shape.max_kv_len) for shape in wanted]
    assert lengths == sorted(lengths)


def test_a_figure_beyond_its_bound_says_so():
    assert Figure("load", 0.9, "s", 1.0).is_good
    assert Figure("tune", 9e9, "ms").is_good
    beyond = Figure("load", 1.1, "s", 1.0)
    assert not beyond.is_good
    assert str(beyond).endswith("1.1 s  (at most 1)  TOO MUCH")


def test_what_is_tuned_is_looked_up(tmp_path):
    wanted = shapes(4)
    path, milliseconds = tuned(tmp_path, wanted)
    assert milliseconds > 0
    table = Table.load(path)
    assert [entry.shape for entry in table.entries] == list(map(str, wanted))
    asked = questions(wanted)
    assert all(table.lookup(**question).is_exact for question in asked["exact"])
    assert not any(table.lookup(**question).is_hit for question in asked["miss (batch)"])
