import pytest

from mla_tune.shapes import BatchShape, Case, Workload
from mla_tune.tuning.guards import guard_lengths, guarded

K = 1024


@pytest.mark.parametrize(
    ("listed", "longest", "guards"),
    [
        ([K, 4 * K, 16 * K], 128 * K, [256, 32 * K, 64 * K, 128 * K]),
        ([K, 4 * K, 16 * K], 20_000, [256, 20_000]),
        ([K, 4 * K, 16 * K], 36_000, [256, 36_000]),
        ([K, 4 * K, 16 * K], 50_000, [256, 32 * K, 50_000]),
        ([16 * K], 16 * K, [256, K, 4 * K]),
        ([K, 64 * K], 64 * K, [256, 4 * K, 16 * K]),
        ([512], 512, []),
        ([16 * K], 3000, [256, K]),
        ([300], 1000, [512, 1000]),
    ],
)
def test_guards_stand_around_and_between_the_listed_lengths(listed, longest, guards):
    assert guard_lengths(listed, longest) == guards


def workload(*specs: str) -> Workload:
    return Workload(tuple(Case(BatchShape.parse(spec)) for spec in specs))


def test_a_workload_gets_the_guards_of_its_batch():
    found = guarded(workload("8q2s1k", "8q2s4k"), 32 * K, lambda _: True)
    assert found.measured_key == "8q2s{1k,4k}+{256,8k,16k,32k}"
    assert [case.weight for case in found.cases] == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]


def test_guards_end_where_the_memory_does():
    def fits(shapes):
        return max(shape.num_kv_tokens for shape in shapes) <= 8 * 20_000

    found = guarded(workload("8q1s1k", "8q1s4k"), 128 * K, fits)
    assert found.measured_key == "8q1s{1k,4k}+{256,8k,18k}"
    assert found.holds_to == 18 * K
    few = guarded(workload("8q1s16k"), 128 * K, lambda some: fits(some) and len(some) < 5)
    assert few.measured_key == "8q1s16k+{256,1k,4k}"
    assert few.holds_to == 16 * K
    assert guarded(workload("8q1s1k"), 128 * K, lambda some: len(some) == 1) == workload("8q1s1k")
