# ruff: noqa: ARG005
"""The real layers on a real GPU. Each backend that runs here, every plan, against float64."""

import importlib.util

import pytest

torch = pytest.importorskip("torch")

from mla_tune.environment import probe  # noqa: E402
from mla_tune.plan.failure import PlanFailure  # noqa: E402
from mla_tune.registry import BACKENDS, get_backend  # noqa: E402
from mla_tune.session import Setup  # noqa: E402
from mla_tune.shapes import BatchShape, MlaDimensions  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.vllm,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM"),
]

RAGGED = "4q1s1k_2q1s333_1q1s17"
UNIFORM = "6q2s1000"
EXTEND = "2q64s1500_1q64s64"
MIXED = "1q300s900_8q1s700"
PREFILL = "1q600_2q130"
EAGER = [RAGGED, UNIFORM, EXTEND, MIXED, PREFILL]
CAPTURED = ["8q1s1k", RAGGED]

# Relative error of the whole output. FLASHMLA's probabilities are in fp8 too, where no one weight
# decides: the queries here are not magnified.
TOLERANCE = {"auto": 1.5e-2, "bfloat16": 1.5e-2, "fp8": 3.5e-2, "fp8_ds_mla": 3e-2}


def cases(mode):
    if not torch.cuda.is_available():
        return []
    environment = probe("cuda")
    found = []
    for backend in BACKENDS:
        if not backend.is_vllm or backend.unavailable(environment) or mode not in backend.modes:
            continue
        for dtype in ("auto", "fp8", "fp8_ds_mla"):
            if dtype in backend.kv_cache_dtypes:
                found.extend((backend.name, dtype, heads) for heads in (16, 128))
    return found


def open_session(name, dtype, heads, mode):
    setup = Setup(
        name,
        MlaDimensions(heads),
        kv_cache_dtype=dtype,
        mode=mode,
        max_model_len=16384,
        max_num_requests=16,
        max_num_query_tokens=2048,
        index_topk=512,
        device="cuda",
    )
    return get_backend(name).open(setup)


def relative_error(session, shape, plan):
    reference = session.reference(shape, session.fp8_tokens(shape, plan))
    got = session.prepare(shape, plan).output[reference.rows].double()
    return float((got - reference.values).norm() / reference.values.norm())


@pytest.mark.parametrize(("name", "dtype", "heads"), cases("eager"))
def test_every_eager_plan_agrees_with_float64(name, dtype, heads):
    if (name, dtype) == ("FLASHMLA", "fp8"):
        # 0.26.0 on an H200: relative error 0.66 for 2 x 130 query tokens without context on the
        # decode path, which its default threshold of 128 never takes. The tuner's check finds it.
        pytest.xfail("fp8 FLASHMLA is wrong beyond its default threshold")
    session = open_session(name, dtype, heads, "eager")
    try:
        shapes = [BatchShape.parse(spec) for spec in EAGER]
        session.load(shapes)
        for shape in shapes:
            for plan in session.plan_space([shape]).plans:
                prepared = session.prepare(shape, plan)
                prepared.output.fill_(float("nan"))
                session.poison_scratch()
                with prepared.applied() as run:
                    run()
                error = relative_error(session, shape, plan)
                assert error < TOLERANCE[dtype], f"{shape} {plan}"
                assert prepared.output.isfinite().all(), f"{shape} {plan}"
    finally:
        session.close()


@pytest.mark.parametrize(("name", "dtype", "heads"), cases("graph"))
def test_captured_plans_agree_with_float64_in_any_order(name, dtype, heads):
    session = open_session(name, dtype, heads, "graph")
    try:
        shapes = [BatchShape.parse(spec) for spec in CAPTURED]
        session.load(shapes)
        graphs = [
            (shape, plan, captured(session.prepare(shape, plan)))
            for shape in shapes
            for plan in session.plan_space([shape]).plans
        ]
        # All captured before any is replayed: what one build leaves behind must not matter.
        for shape, plan, graph in reversed(graphs):
            prepared = session.prepare(shape, plan)
            prepared.output.fill_(float("nan"))
            graph.replay()
            torch.cuda.synchronize()
            error = relative_error(session, shape, plan)
            assert error < TOLERANCE[dtype], f"{shape} {plan}"
    finally:
        session.close()


def captured(prepared):
    graph = torch.cuda.CUDAGraph()
    with prepared.applied() as run:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            run()
    return graph


@pytest.mark.parametrize(("name", "dtype", "heads"), cases("eager")[:1])
def test_knobs_are_restored_after_an_exception(name, dtype, heads):
    session = open_session(name, dtype, heads, "eager")
    try:
        shape = BatchShape.parse(EXTEND)
        session.load([shape])
        builder = session.parts.builder
        before = (builder.reorder_batch_threshold, id(getattr(builder, "_prefill_backend", None)))
        plan = session.plan_space([shape]).plans[-1]
        with pytest.raises(RuntimeError, match="middle"), session.prepare(shape, plan).applied():
            raise RuntimeError("in the middle")
        after = (builder.reorder_batch_threshold, id(getattr(builder, "_prefill_backend", None)))
        assert before == after
    finally:
        session.close()


def test_a_plan_that_does_not_reach_the_kernel_is_an_error(monkeypatch):
    session = open_session("TRITON_MLA", "auto", 16, "eager")
    try:
        shape = BatchShape.parse("8q1s4k")
        session.load([shape])
        plan = session.plan_space([shape]).plans[1]
        # A release that no longer reads the count from the metadata.
        monkeypatch.setattr(
            session.rules.kernel_knobs["num_kv_splits"], "stamp", lambda metadata, value: None
        )
        with (
            pytest.raises(PlanFailure, match="splits") as failure,
            session.prepare(shape, plan).applied(),
        ):
            pass
        assert failure.value.kind == "not applied"
    finally:
        session.close()


@pytest.mark.parametrize(("name", "dtype", "heads"), cases("eager")[:1])
def test_estimate_covers_what_is_used(name, dtype, heads):
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    session = open_session(name, dtype, heads, "eager")
    try:
        shape = BatchShape.parse("16q1s16k")
        session.load([shape])
        for plan in session.plan_space([shape]).plans:
            with session.prepare(shape, plan).applied() as run:
                run()
        used = torch.cuda.max_memory_allocated() - before
        assert used <= get_backend(name).estimate_bytes(session.setup, [shape])
    finally:
        session.close()


@pytest.mark.parametrize("dtype", ["auto", "fp8"])
@pytest.mark.parametrize("heads", [16, 128])
def test_every_launch_runs_and_agrees_with_float64(heads, dtype):
    """Some minutes of compiling: each launch that the GPU is said to have the memory for."""
    backend, shape = get_backend("TRITON_MLA"), BatchShape.parse(RAGGED)
    if backend.unavailable(probe("cuda")):
        pytest.skip("TRITON_MLA does not run here")
    setup = Setup(
        *("TRITON_MLA", MlaDimensions(heads), dtype),
        max_model_len=4096,
        max_num_requests=16,
        max_num_query_tokens=64,
        device="cuda",
        launches=True,
    )
    session = backend.open(setup)
    session.load([shape])
    reference = session.reference(shape)
    launched = [plan for plan in session.plan_space([shape]).plans if "block_n" in plan]
    for plan in [plan for plan in launched if plan.get("num_kv_splits") == 4]:
        prepared = session.prepare(shape, plan)
        prepared.output.fill_(float("nan"))
        with prepared.applied() as run:
            run()
        got = prepared.output[reference.rows].double()
        error = (got - reference.values).norm() / reference.values.norm()
        assert error < TOLERANCE[dtype], plan
    session.close()
