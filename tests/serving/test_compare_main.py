"""The real comparison on a CPU: TORCH_MLA against itself, under other plans."""

import time
from typing import Any, NoReturn

import pytest

from fake_device import FakeBench
from mla_tune.errors import EnvironmentFailure
from mla_tune.serving import compare_main
from mla_tune.serving.compare_main import _contender, answer
from mla_tune.serving.compare_request import CompareAnswer, CompareRequest, Contending

TINY = {
    "num_q_heads": 2,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
}


def shapes(*specs: str, **changes: Any) -> dict[str, Any]:
    engine = {"modes": ["eager"], "max_model_len": 4096}
    return {"model": TINY, "engine": engine, "batch_specs": list(specs), **changes}


def compare(*contenders: Contending) -> CompareAnswer:
    request = CompareRequest(contenders, "cpu", gate=1.02, ends_s=time.monotonic() + 60.0)
    return CompareAnswer.from_json(answer(request.as_json()))


def test_a_backend_is_measured_under_the_plans_it_would_have(capfd: Any) -> None:
    same = shapes("q1s128", "4q1s256")
    found = compare(
        Contending("TORCH_MLA", same, {"4q1s256": {"num_kv_splits": 2}}),
        Contending("TORCH_MLA", same, {}),
        Contending("TORCH_MLA", shapes("q1s128"), {}),
        Contending("CUTLASS_MLA", same, {}),
    )
    assert not found.problem
    (comparison,) = found.comparisons
    assert comparison.backend == "TORCH_MLA"
    assert comparison.visits >= 1  # one where the machine is busy, and it seemed far behind
    assert min(comparison.latencies_us) > 0
    err = capfd.readouterr().err
    assert "TORCH_MLA is left out: it does not take the same batches" in err
    assert "CUTLASS_MLA is left out: CUTLASS_MLA needs a CUDA GPU" in err


def test_each_batch_has_the_plan_of_its_table() -> None:
    plans = {"4q1s256": {"num_kv_splits": 2}, "8q1s256": {"num_kv_splits": 4}}
    asked = Contending("TORCH_MLA", shapes("q1s128", "4q1s256"), plans)
    found = _contender(FakeBench({}), asked)  # type: ignore[arg-type]  # of its device alone
    assert [(str(workload), dict(plan)) for workload, plan in found.plans] == [
        ("q1s128", {}),
        ("4q1s256", {"num_kv_splits": 2}),
    ]


def test_what_fails_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_worker(_device: str) -> NoReturn:
        raise EnvironmentFailure("no worker starts", remedy="see its log")

    monkeypatch.setattr(compare_main, "scratch_worker", no_worker)
    assert compare().problem == "no worker starts; to do: see its log"
