"""Run in a process of its own: launches of TRITON_MLA's kernel in Triton's interpreter, as JSON."""

import json
import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ["TRITON_INTERPRET"] = "1"

import torch

# No multiple of a thread block's heads, and rows that no tile of tokens divides.
HEADS, SPEC = 20, "1q1s70_1q1s21"


def main() -> None:
    torch.set_num_threads(2)  # stands for the number of SMs
    from mla_tune.registry import get_backend
    from mla_tune.session import Setup
    from mla_tune.shapes import BatchShape, MlaDimensions

    setup = Setup(
        "TRITON_MLA",
        MlaDimensions(HEADS, 256, 32, 64, 32),
        max_model_len=4096,
        max_num_requests=8,
        max_num_query_tokens=256,
        launches=True,
    )
    session = get_backend("TRITON_MLA").open(setup)
    shape = BatchShape.parse(SPEC)
    session.load([shape])
    space = session.plan_space([shape])
    # Warps and stages are nothing to the interpreter.
    tiles = {
        (plan.get("block_n"), plan.get("block_h")): plan
        for plan in space.plans
        if plan.get("num_kv_splits") == 2
    }
    # The last of them: 8 warps and 3 stages.
    launched = tiles[64, 32]
    report = {
        "plans": [dict(plan) for plan in space.plans],
        "assignments": space.assignments,
        "tried": [tried(session, shape, plan) for plan in tiles.values()],
        "prefill": [dict(plan) for plan in session.plan_space([BatchShape.parse("1q40")]).plans],
        "restored": restored(session, shape, space.default, launched),
        "compiled": compiled_ahead(session, space.plans[:2]),
        "around": failure(session, shape, launched),
    }
    session.close()
    print("REPORT" + json.dumps(report))


def tried(session, shape, plan) -> dict:
    """A plan against float64, and what its kernel was launched with."""
    reference, launcher = session.reference(shape), session.parts.launcher
    prepared = session.prepare(shape, plan)
    prepared.output.fill_(float("nan"))
    # Applying it runs it once, to see what arrives.
    with launcher.observed() as seen, prepared.applied():
        got = prepared.output.double()
    return {
        "resources": prepared.resources,
        "plan": dict(plan),
        "seen": [dict(launch) for launch in seen],
        "error": float((got[reference.rows] - reference.values).norm() / reference.values.norm()),
        "finite": bool(got.isfinite().all()),
    }


def compiled_ahead(session, plans) -> list[int]:
    """How many kernels were compiled ahead, and of how many plans that was told."""
    told = []
    done = session.compile(plans, 1.0, told.append)
    return [done.kernels, len(done.failures), len(told)]


def restored(session, shape, default, launched) -> list[dict]:
    """What vLLM launches with inside of another plan, and after that has failed."""
    untuned = session.prepare(shape, default)
    with session.parts.launcher.observed() as seen:
        try:
            with session.prepare(shape, launched).applied() as run_launched:
                run_launched()
                with untuned.applied() as run:
                    run()
                run_launched()
                raise RuntimeError("something in the middle")
        except RuntimeError:
            pass
        untuned.forward()
    return [dict(launch) for launch in seen]


def failure(session, shape, launched) -> str:
    """What is said where vLLM launches its kernel around what stands in its place."""
    from mla_tune.plan.failure import PlanFailure
    from mla_tune.vllm import compat, triton_launch

    module = compat.module(triton_launch.KERNEL_MODULE)
    setattr(module, triton_launch.KERNEL, session.parts.launcher.kernel.kernel)
    session.load([shape])
    try:
        with session.prepare(shape, launched).applied():
            return "applied"
    except PlanFailure as error:
        return f"{error.kind}: {error}"


if __name__ == "__main__":
    main()
