"""The ragged cases of a graph's workload."""

from hypothesis import given
from hypothesis import strategies as st

from mla_tune.shapes import BatchShape, Case, Workload
from mla_tune.shapes.ragged import RaggedMix
from mla_tune.tuning.guards import guarded
from mla_tune.tuning.ragged import with_ragged

K = 1024


def workload(*specs: str, weights: tuple[float, ...] = (2.0, 1.0)) -> Workload:
    pairs = zip(specs, weights, strict=True)
    return Workload(tuple(Case(BatchShape.parse(spec), weight) for spec, weight in pairs))


def everything(_):
    return True


def test_a_share_of_each_length_is_ragged():
    found = with_ragged(workload("8q1s1k", "8q1s4k"), RaggedMix(0.25, 1.0), 32 * K, everything)
    assert str(found) == "8q1s{1k,4k}"
    assert [case.weight for case in found.listed] == [1.5, 0.75]
    ragged = [case for case in found.cases if case.is_ragged and case.weight]
    assert sorted(case.weight for case in ragged) == [0.25, 0.5]
    assert found.weight == 3.0
    assert found.holds_ragged


def test_one_long_request_is_a_guard():
    found = with_ragged(workload("8q1s1k", "8q1s4k"), RaggedMix(), 32 * K, everything)
    (extreme,) = (case for case in found.cases if case.is_ragged and not case.weight)
    assert str(extreme.shape) == "q1s32k_7q1s1k"


def test_one_request_is_never_ragged_and_some_traffic_is_not():
    single = workload("q1s1k", "q1s4k")
    assert with_ragged(single, RaggedMix(), 32 * K, everything) == single
    uniform = workload("8q1s1k", "8q1s4k")
    assert with_ragged(uniform, RaggedMix(share=0), 32 * K, everything) == uniform


def test_what_memory_cannot_hold_is_left_out_with_its_weight():
    def fits(shapes):
        return max(shape.max_kv_len for shape in shapes) <= 8 * K

    found = with_ragged(workload("8q1s1k", "8q1s4k"), RaggedMix(0.5), 32 * K, fits)
    assert [case.weight for case in found.listed] == [1.0, 1.0]
    assert [case.weight for case in found.cases if case.is_ragged] == [1.0]


def test_ragged_batches_have_to_fit_beside_each_other():
    uniform = workload("8q1s1k", "8q1s4k")

    def fits(shapes):
        return len(shapes) <= 3

    found = with_ragged(uniform, RaggedMix(0.5), 32 * K, fits)
    assert [case.weight for case in found.cases if case.is_ragged] == [1.0]
    assert len(found.cases) == 3


@given(st.integers(1, 512), st.floats(0, 0.99), st.floats(0.01, 4.0), st.integers(16 * K, 128 * K))
def test_any_mix_keeps_key_weight_and_order(count, share, sigma, longest):
    bare = workload(f"{count}q1s1k", f"{count}q1s16k")
    held = guarded(bare, longest, everything)
    found = with_ragged(held, RaggedMix(share, sigma), longest, everything)
    assert str(found) == str(bare)
    assert abs(found.weight - bare.weight) < 1e-9
    assert Workload.parse_measured(found.measured_key).shapes == found.shapes
    assert set(held.shapes) <= set(found.shapes)
    assert found.holds_to == held.holds_to
