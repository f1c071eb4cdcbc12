"""Run in a process of its own: drive backends of the installed vLLM and print what happened.

Arguments: the compute capability's major version that is pretended, or 0 for the CPU itself, and
runs as JSON, each a backend, a mode, and batch specs. Every run has a process of its own, forked
from one that has imported vLLM, which takes most of the time. TRITON_MLA runs its real kernels in
Triton's interpreter, on the CPU; the others run vLLM's Python over kernels in plain torch
(`pretend_h200`). Prints one JSON object for each run, after ``REPORT`` and the run's number.
"""

import importlib
import json
import os
import sys

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
# Its kernel runs for real; sparse backends translate their indices with a Triton kernel.
os.environ["TRITON_INTERPRET"] = "1"

import torch

HEADS = 16
KERNEL_CALLS: list = []
# All that a run imports, but for the backend's own module.
IMPORTED_ONCE = (
    "vllm.model_executor.kernels.linear",
    "vllm.model_executor.layers.attention.mla_attention",
    "vllm.v1.executor",
)


def main(major: int, runs: list[tuple[str, str, list[str]]]) -> None:
    if major:
        import pretend_h200

        global KERNEL_CALLS
        KERNEL_CALLS = pretend_h200.KERNEL_CALLS
        pretend_h200.become(major)
    else:
        from mla_tune.vllm.session.config import use_cpu_platform

        use_cpu_platform()
        torch.set_num_threads(2)  # stands for the number of SMs
    for module in IMPORTED_ONCE:
        importlib.import_module(module)
    for number, run in enumerate(runs):
        if os.fork() == 0:
            # Where this raises, the others still have their turn.
            print(f"REPORT{number} " + json.dumps(report(major, *run)))
            return
        os.wait()


def report(major: int, name: str, mode: str, specs: list[str]) -> dict:
    from mla_tune.shapes import BatchShape

    session = open_session(major, name, mode)
    shapes = [BatchShape.parse(spec) for spec in specs]
    session.load(shapes)
    before = knobs_as_found(session)
    found = {"engine": describe(session), "shapes": {}}
    for shape in shapes:
        found["shapes"][str(shape)] = tried(session, shape)
    found["restored"] = before == knobs_as_found(session)
    found["restored_after_error"] = restored_after_error(session, shapes[0])
    found["replayed"] = replayed(session, shapes)
    session.close()
    return found


def open_session(major: int, name: str, mode: str):
    from mla_tune.registry import get_backend
    from mla_tune.session import Setup
    from mla_tune.shapes import MlaDimensions

    setup = Setup(
        name,
        MlaDimensions(HEADS),
        mode=mode,
        max_model_len=4096,
        max_num_requests=8,
        max_num_query_tokens=256,
        index_topk=128,
        device="cpu",
    )
    if not major:
        return get_backend(name).open(setup)
    import pretend_h200

    return pretend_h200.open_session(setup)


def describe(session) -> dict:
    rules = session.rules
    return {
        "threshold": rules.threshold,
        "has_threshold": rules.has_threshold,
        "uniform": rules.uniform,
        "prefill_backends": rules.prefill_backends,
        "block_size": session.block_size,
    }


def knobs_as_found(session) -> list:
    parts = session.parts
    found = [
        parts.builder.reorder_batch_threshold,
        getattr(parts.builder, "max_num_splits", None),
        id(getattr(parts.builder, "_prefill_backend", None)),
        getattr(parts.impl, "_num_kv_splits", None),
    ]
    return [*found, parts.vllm_config.attention_config.flash_attn_version]


def tried(session, shape) -> list[dict]:
    """Every plan of ``shape`` against float64, over poisoned output and workspaces."""
    reference = session.reference(shape)
    results = []
    for plan in session.plan_space([shape]).plans:
        prepared = session.prepare(shape, plan)
        prepared.output.fill_(float("nan"))
        session.poison_scratch()
        del KERNEL_CALLS[:]
        with prepared.applied() as run:
            del KERNEL_CALLS[:]
            run()
        got = prepared.output.double()
        error = (got[reference.rows] - reference.values).norm() / reference.values.norm()
        results.append(
            {
                "plan": dict(plan),
                "full": dict(prepared.plan),
                "error": float(error),
                "finite": bool(got.isfinite().all()),
                "decode_tokens": prepared.route.num_decode_tokens,
                "calls": list(KERNEL_CALLS),
            }
        )
    return results


def restored_after_error(session, shape) -> bool:
    before = knobs_as_found(session)
    plan = session.plan_space([shape]).plans[-1]
    try:
        with session.prepare(shape, plan).applied():
            raise RuntimeError("something in the middle")
    except RuntimeError:
        pass
    return before == knobs_as_found(session)


def replayed(session, shapes) -> bool:
    """Whether each shape's first batch still computes the same after all others were built."""
    same = []
    for shape in shapes:
        prepared = session.prepare(shape, session.plan_space([shape]).default)
        with prepared.applied() as run:
            run()
            first = prepared.output.clone()
        for other in shapes:
            session.prepare(other, session.plan_space([other]).plans[-1])
        with prepared.applied() as run:
            run()
            same.append(torch.equal(first, prepared.output))
    return all(same)


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
