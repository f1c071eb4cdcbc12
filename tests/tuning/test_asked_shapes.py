import pytest

from mla_tune.errors import InputError
from mla_tune.shapes.file import load_shapes
from mla_tune.tuning.asked_shapes import asked_shapes, cut
from mla_tune.tuning.run_options import RunOptions
from served_record import written


@pytest.fixture
def shapes(write):
    return load_shapes(
        write("model: deepseek-v3\ntensor_parallel_sizes: [8]\nbatch_specs: [q1s1k, 8q1s1k]\n")
    )


def test_without_flags_a_file_stays_as_it_is(shapes):
    assert cut(shapes, RunOptions(), print) == shapes


def test_max_tokens_leaves_out_what_is_larger_and_says_so(shapes):
    skipped = []
    kept = cut(shapes, RunOptions(max_tokens=1024), skipped.append)
    assert [str(case.shape) for case in kept.cases] == ["q1s1k"]
    assert skipped == ["--max-tokens 1024: 1 larger shape left out"]


def test_max_tokens_leaves_out_ragged_batches_that_are_larger(write):
    text = (
        "engine: {modes: graph}\nbatch_specs: [8q1s1k]\nragged_specs:\n"
        "- {spec: 8q1s1k, longest: 4k, share: 0.1}\n- {spec: 8q1s2k, longest: 4k, share: 0.1}\n"
    )
    skipped = []
    kept = cut(load_shapes(write(text)), RunOptions(max_tokens=8192), skipped.append)
    assert [spec.mean_kv for spec in kept.ragged.specs] == [1024]
    assert skipped == ["--max-tokens 8192: 1 larger shape left out"]


def test_max_tokens_that_leaves_nothing_says_how_many_it_takes(shapes):
    with pytest.raises(InputError) as caught:
        cut(shapes, RunOptions(max_tokens=1023), print)
    assert caught.value.valid == "1024 or more for this file"


def test_tensor_parallel_sizes_of_the_command_line_divide_the_whole_model(shapes):
    cut_down = cut(shapes, RunOptions(tensor_parallel_size=(16, 32)), print)
    assert [model.num_q_heads for model in cut_down.models] == [8, 4]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("engine: {modes: graph}\ntensor_parallel_sizes: [1, 8]\n", None),
        ("tensor_parallel_sizes: [8]\n", "engine.modes are eager"),
        ("engine: {modes: graph}\n", "other heads: 16 on a GPU"),
    ],
)
def test_a_record_has_to_be_of_what_is_tuned(write, tmp_path, text, problem):
    record = written(tmp_path / "served.json", ("graph", "hit", 8, 1, 900, 900, 20_000))
    path = write("model: deepseek-v3\nbatch_specs: [q1s1k]\n" + text)
    options = RunOptions(shapes=path, guard="served", served=record)
    if problem is None:
        assert asked_shapes(options, print).modes == ("graph",)
        return
    with pytest.raises(InputError, match=problem):
        asked_shapes(options, print)
