from shapes_files import specs

from mla_tune.shapes.file import load_shapes


def test_weights(write):
    file = load_shapes(write("batch_specs: [q1s1k, {spec: 2q1s1k, weight: 2.5}]\n"))
    assert [case.weight for case in file.cases] == [1.0, 2.5]


def test_grids_cross_batches_query_and_kv_lengths_with_a_distribution(write):
    text = "grids:\n  - {batch_sizes: [1, 8], query_lens: [1, 4], kv_lens: {1k: 3, 4k: 1}}\n"
    file = load_shapes(write(text))
    assert specs(file) == [
        *("q1s1k", "q1s4k", "q4s1k", "q4s4k", "8q1s1k", "8q1s4k", "8q4s1k", "8q4s4k"),
    ]
    assert [case.weight for case in file.cases] == [3.0, 1.0] * 4


def test_a_grid_takes_single_values_too(write):
    assert specs(load_shapes(write("grids: [{batch_sizes: 8, kv_lens: 1k}]\n"))) == ["8q1s1k"]


def test_batch_sizes_repeat_every_spec_as_in_vllm(write):
    file = load_shapes(write("batch_specs: [q1s1k, 2q4s1k]\nbatch_sizes: [1, 8]\n"))
    assert specs(file) == ["q1s1k", "8q1s1k", "2q4s1k", "16q4s1k"]


def test_batch_spec_ranges_expand_as_in_vllm(write):
    text = """
batch_spec_ranges:
  - template: "{q}q{n}s1k"
    q: {start: 1, stop: 3}
    n: {start: 1, stop: 5, step: 4, end_inclusive: true}
  - template: "q{len}"
    len: {start: 16, stop: 32, step: 16, end_inclusive: false}
"""
    assert specs(load_shapes(write(text))) == [
        *("q1s1k", "q5s1k", "2q1s1k", "2q5s1k", "3q1s1k", "3q5s1k", "q16"),
    ]


def test_merge_keys_spare_repetition(write):
    text = (
        "grids:\n  - &decode {batch_sizes: [1, 8], query_lens: [1], kv_lens: {1k: 3}}\n"
        "  - {<<: *decode, kv_lens: 4k}\n"
    )
    file = load_shapes(write(text))
    assert specs(file) == ["q1s1k", "8q1s1k", "q1s4k", "8q1s4k"]
