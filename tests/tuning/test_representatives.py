import pytest

from mla_tune.shapes import BatchShape, Case, Workload
from mla_tune.tuning.representatives import representatives


def batches(*counts, weights=None):
    weights = weights or [1.0] * len(counts)
    return [
        Workload((Case(BatchShape.parse(f"{count}q1s1k"), weight),))
        for count, weight in zip(counts, weights, strict=True)
    ]


def chosen(workloads):
    return [str(workload).removesuffix("q1s1k") for workload in representatives(workloads)]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([], []),
        ([8], ["8"]),
        ([8, 2], ["2", "8"]),
        ([4, 2, 8], ["4", "2", "8"]),
        ([2, 4, 8, 16, 32, 64, 128, 256, 512], ["32", "4", "256"]),
        (range(2, 62), ["31", "11", "51"]),
    ],
)
def test_each_stands_in_the_middle_of_its_third(counts, expected):
    assert chosen(batches(*counts)) == expected


def test_what_is_served_most_stands_for_most():
    assert chosen(batches(2, 4, 8, 16, weights=[1, 1, 1, 97])) == ["16"]
    assert chosen(batches(2, 4, 8, 16, weights=[40, 1, 1, 60])) == ["16", "2"]


def test_guards_and_order_of_the_shapes_file_do_not_count():
    guarded = Workload((Case(BatchShape.parse("8q1s1k")), Case(BatchShape.parse("8q1s64k"), 0.0)))
    others = batches(4, 2)
    found = representatives([guarded, *others])
    assert found == representatives([*others, guarded])
    assert found[0] == others[0]
