"""The ragged cases of a graph's workload."""

from hypothesis import given
from hypothesis import strategies as st

from mla_tune.shapes import BatchShape, Case, Workload
from mla_tune.shapes.ragged import RaggedMix, RaggedSpec, longest_of
from mla_tune.tuning.guards import guarded
from mla_tune.tuning.ragged import ragged_about, with_ragged

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


def test_batches_of_one_length_have_no_ragged_guards():
    many = workload("8q1s1k", "8q1s4k")
    single = Workload.parse("q1s1k")
    assert ragged_about(single, RaggedMix(), 32 * K) is None
    assert ragged_about(many, RaggedMix(share=0), 32 * K) is None
    served = RaggedMix(share=0, specs=(RaggedSpec(8, 1, 2 * K, 8 * K, 0.5),))
    about = ragged_about(many, served, 32 * K)
    assert about is not None
    found = guarded(with_ragged(many, served, 32 * K, everything), 32 * K, everything, about)
    beside = [case for case in found.cases if case.is_ragged and case.weight == 0]
    # About 8k, 16k and 32k, where 32k is the longest of all; and the one long request.
    assert [case.shape.max_kv_len for case in beside] == [25408, 32 * K, 32 * K, 32 * K]
    assert found.weight == many.weight


def test_what_is_served_of_a_size_takes_the_place_of_what_is_assumed():
    mix = RaggedMix(specs=(RaggedSpec(8, 1, 2 * K, 8 * K, 0.5), RaggedSpec(8, 1, K, 4 * K, 0.25)))
    found = with_ragged(workload("8q1s1k", "8q1s4k"), mix, 32 * K, everything)
    assert [case.weight for case in found.listed] == [0.5, 0.25]
    ragged = [case for case in found.cases if case.is_ragged]
    # Three steps in all; and the guard of one long request.
    assert [(case.shape.max_kv_len, case.weight) for case in ragged] == [
        (4 * K, 0.75),
        (8 * K, 1.5),
        (32 * K, 0.0),
    ]
    assert sum(found.shares()) == 1.0
    other = workload("16q1s1k", "16q1s4k")
    assert with_ragged(other, mix, 32 * K, everything) == with_ragged(
        other, RaggedMix(), 32 * K, everything
    )


def test_a_share_of_zero_is_of_the_sizes_that_nothing_is_known_of():
    mix = RaggedMix(share=0, specs=(RaggedSpec(8, 1, 2 * K, 8 * K, 0.5),))
    assert with_ragged(workload("8q1s1k", "8q1s4k"), mix, 32 * K, everything).holds_ragged
    other = workload("16q1s1k", "16q1s4k")
    assert with_ragged(other, mix, 32 * K, everything) == other


def test_a_served_batch_that_memory_cannot_hold_leaves_its_share_to_the_uniform_ones():
    mix = RaggedMix(specs=(RaggedSpec(8, 1, 2 * K, 16 * K, 0.5), RaggedSpec(8, 1, K, 4 * K, 0.25)))

    def fits(shapes):
        return max(shape.max_kv_len for shape in shapes) <= 8 * K

    found = with_ragged(workload("8q1s1k", "8q1s4k"), mix, 32 * K, fits)
    assert [case.weight for case in found.listed] == [1.5, 0.75]
    assert [case.weight for case in found.cases if case.is_ragged] == [0.75]


specs = st.lists(
    st.tuples(st.integers(2, 60_000), st.integers(1, 60_000), st.floats(0.001, 0.24)),
    min_size=1,
    max_size=4,
)


@given(st.integers(2, 300), specs)
def test_served_batches_keep_key_weight_and_order(count, asked):
    bare = workload(f"{count}q1s1k", f"{count}q1s16k")
    held = guarded(bare, 128 * K, everything)
    known = [
        RaggedSpec(count, 1, mean, min(mean + more, longest_of(count, 1, mean)), share)
        for mean, more, share in asked
    ]
    found = with_ragged(held, RaggedMix(specs=tuple(known)), 128 * K, everything)
    assert str(found) == str(bare)
    assert abs(found.weight - bare.weight) < 1e-9
    assert abs(sum(found.shares()) - 1) < 1e-9
    assert Workload.parse_measured(found.measured_key).shapes == found.shapes
    assert set(held.shapes) <= set(found.shapes)
    assert found.holds_to == held.holds_to
