from dataclasses import replace
from types import SimpleNamespace

import pytest

from mla_tune.vllm.plugin.deployment import Deployment
from mla_tune.vllm.plugin.reach import most_kv_tokens
from tabled_engine import H200

GIB = 2**30


def layer(kv_cache_dtype: str = "auto") -> SimpleNamespace:
    return SimpleNamespace(kv_b_proj=None, kv_cache_dtype=kv_cache_dtype)


def engine(
    *layers: SimpleNamespace, given: int | None = 40 * GIB, stages: int = 1
) -> SimpleNamespace:
    return SimpleNamespace(
        parallel_config=SimpleNamespace(pipeline_parallel_size=stages),
        cache_config=SimpleNamespace(kv_cache_memory_bytes=given, gpu_memory_utilization=0.5),
        compilation_config=SimpleNamespace(static_forward_context=dict(enumerate(layers))),
    )


def test_the_memory_given_is_shared_by_all_layers_of_that_cache() -> None:
    mamba = SimpleNamespace()
    found = most_kv_tokens(engine(layer(), layer("bfloat16"), layer("fp8"), mamba), H200)
    assert found == 40 * GIB // (2 * 576 * 2)
    fp8 = replace(H200, kv_cache_dtype="fp8")
    assert most_kv_tokens(engine(layer("fp8")), fp8) == 40 * GIB // 576


def test_otherwise_all_memory_that_the_engine_may_use_is_a_bound(monkeypatch) -> None:
    torch = pytest.importorskip("torch")
    total = SimpleNamespace(total_memory=int(79.1 * GIB))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: total)
    assert most_kv_tokens(engine(layer(), given=None), H200) == 40 * GIB // 1152


def test_ranks_whose_memory_differs_a_little_come_to_one_figure() -> None:
    ranks = [engine(layer(), given=39 * GIB + few) for few in (1, 1000)]
    assert len({most_kv_tokens(rank, H200) for rank in ranks}) == 1


def test_stages_and_cpus_have_no_bound() -> None:
    assert most_kv_tokens(engine(layer(), stages=2), H200) is None
    cpu = replace(H200, compute_capability=None)
    assert most_kv_tokens(engine(layer(), given=None), cpu) is None
    assert most_kv_tokens(engine(), H200) is None


@pytest.mark.parametrize(
    ("most", "requests", "reach"),
    [(None, 512, 131072), (10**6, 1, 131072), (10**6, 8, 125_000), (10**6, 512, 1953)],
)
def test_how_far_an_engine_reaches(most: int | None, requests: int, reach: int) -> None:
    assert Deployment(H200, (), {}, (), most).reach(requests) == reach
