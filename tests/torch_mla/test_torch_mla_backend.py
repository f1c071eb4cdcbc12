import numpy as np
import pytest
import torch

from mla_tune.measuring.correctness import TOLERANCES
from mla_tune.plan.failure import PlanFailure
from mla_tune.plan.plan import Plan
from mla_tune.shapes import PRESETS, BatchShape
from mla_tune.torch_mla.backend import TorchMla, TorchMlaSession
from torch_mla_cases import MODEL, SETUP, array, float64_attention

SHAPES = [
    "q1s1",
    "3q1s200",
    "q1s64_q1s65_2q1s500",  # ragged, around a block's end
    "2q4s100_q4s333",
    "q16_3q1s90",  # mixed
    "q40s100_q16_2q4s70_q1s1_q1s129",
    "2q70",  # prefill of more than one request
]
TORCH_MLA = TorchMla()


@pytest.fixture(scope="module")
def session():
    session = TorchMlaSession(SETUP)
    yield session
    session.close()


def loaded(session, spec):
    shape = BatchShape.parse(spec)
    session.load([shape])
    return shape, session.plan_space([shape])


def output_of(session, shape, plan):
    prepared = session.prepare(shape, plan)
    prepared.output.fill_(float("nan"))
    with prepared.applied() as run:
        run()
    return array(prepared.output)


@pytest.mark.parametrize("spec", SHAPES)
def test_every_plan_agrees_with_an_independent_float64_computation(session, spec):
    shape, space = loaded(session, spec)
    expected = float64_attention(session, shape)
    for plan in space.plans:
        error = output_of(session, shape, plan) - expected
        assert np.linalg.norm(error) < 1e-5 * np.linalg.norm(expected), plan


@pytest.mark.parametrize("spec", SHAPES)
def test_the_sessions_own_reference_agrees_with_it_too(session, spec):
    shape, _ = loaded(session, spec)
    reference = session.reference(shape)
    expected = float64_attention(session, shape)[reference.rows.numpy()]
    np.testing.assert_allclose(array(reference.values), expected, rtol=1e-10, atol=1e-12)


def test_a_bfloat16_cache_is_computed_from_what_it_holds(session):
    from dataclasses import replace

    rounded = TorchMlaSession(replace(SETUP, kv_cache_dtype="bfloat16"))
    shape, space = loaded(rounded, "3q1s200")
    expected = float64_attention(rounded, shape)
    for plan in space.plans:
        error = output_of(rounded, shape, plan) - expected
        assert np.linalg.norm(error) < 1e-5 * np.linalg.norm(expected)
    del session


def test_the_default_is_vllms_old_four_splits_and_decode_of_single_tokens(session):
    shape, space = loaded(session, "q16_3q1s500")
    first = session.prefill_backends[0]
    assert space.default == Plan(reorder_batch_threshold=1, num_kv_splits=4, prefill_backend=first)
    np.testing.assert_array_equal(
        output_of(session, shape, Plan()), output_of(session, shape, space.default)
    )


@pytest.mark.parametrize(
    ("spec", "knobs"),
    [
        ("q1s64", set()),  # one block: nothing to split, nothing to prefill
        ("8q1s1k", {"num_kv_splits"}),
        ("q200", {"prefill_backend"}),  # beyond the longest decode query
        ("4q8s1k", {"reorder_batch_threshold", "num_kv_splits", "prefill_backend"}),
    ],
)
def test_only_knobs_that_matter_are_in_the_plans(session, spec, knobs):
    space = session.plan_space([BatchShape.parse(spec)])
    assert {name for plan in space.plans for name in dict(plan)} == knobs


def test_splits_beyond_the_blocks_there_are_fold_together(session):
    space = session.plan_space([BatchShape.parse("q1s128")])
    assert len(space.plans) == 2
    assert space.assignments > len(space.plans)


def test_an_implementation_that_does_not_run_here_is_refused(session):
    shape, _ = loaded(session, "q16")
    with pytest.raises(PlanFailure, match="'sdpa_warp' does not run here") as caught:
        session.prepare(shape, Plan(prefill_backend="sdpa_warp"))
    assert caught.value.kind == "not applied"


def test_inputs_are_ragged_pages_out_of_order(session):
    shape, _ = loaded(session, "q1s64_q1s65_2q1s500")
    table = session._batches[shape].cache.table
    used = table[table > 0]
    assert len(set(used.tolist())) == len(used)
    assert used.tolist() != sorted(used.tolist())


def test_the_facts():
    assert TORCH_MLA.supports("eager", BatchShape.parse("q1")) is None
    assert "CUDA graphs" in TORCH_MLA.supports("graph", BatchShape.parse("q1"))
    assert TORCH_MLA.knobs == ("reorder_batch_threshold", "num_kv_splits", "prefill_backend")


@pytest.mark.parametrize("spec", ["8q1s1k", "4q64s1k", "q300s600", "q100_20q1s700"])
def test_the_estimate_is_no_less_than_what_a_shape_takes(session, spec):
    shape, space = loaded(session, spec)
    batch = session._batches[shape]
    held = sum(t.nbytes for t in (batch.query, batch.cache.blocks, batch.output))
    assert TORCH_MLA.estimate_bytes(SETUP, [shape]) > held
    assert space.plans


def test_the_estimate_grows_with_the_cache():
    from dataclasses import replace

    setup = replace(SETUP, model=PRESETS["deepseek-v3"])
    small, large = (
        TORCH_MLA.estimate_bytes(setup, [BatchShape.parse(spec)])
        for spec in ("64q1s1k", "64q1s128k")
    )
    assert large - small > 64 * 127 * 1024 * 576 * 4


def test_activations_are_float32_on_a_cpu(session):
    assert session.dtype is torch.float32
    assert str(session.dtype) in TOLERANCES
    assert session.setup.model == MODEL
