"""TOKENSPEED_MLA's floor, in vLLM's own Python over a stand-in for the package."""

import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
pytest.importorskip("vllm")
pytestmark = pytest.mark.vllm

import torch  # noqa: E402
from vllm_on_cpu import Engine, load_model  # noqa: E402

from mla_tune.plan.plan import UNTUNED, Plan  # noqa: E402
from mla_tune.table import Entry  # noqa: E402
from mla_tune.vllm import workspace  # noqa: E402
from mla_tune.vllm.backends.tokenspeed_mla import FLOOR  # noqa: E402
from tabled_engine import MODEL, WriteTable, cpu_header, entry  # noqa: E402

MODULE = "mla_tune.vllm.plugin.tokenspeed_mla"


class Package:
    """What the package does with sizes; it notes the floor and the workspace of every launch."""

    def __init__(self) -> None:
        self.launched: list[int | None] = []
        self.sizes: list[int] = []

    def get_num_sm(self, device: Any) -> int:
        del device
        return 148

    def warmup_compile_prefill(self, **_: Any) -> None:
        pass

    def tokenspeed_mla_decode(self, **arguments: Any) -> Any:
        query, workspace = arguments["query"], arguments["workspace_buffer"]
        self.launched.append(arguments.get("min_split_kv"))
        self.sizes.append(workspace.numel())
        output = torch.zeros(*query.shape[:3], MODEL.kv_lora_rank)
        return (output, torch.zeros(query.shape[:3])) if arguments["return_lse"] else output


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    found = Package()
    monkeypatch.setitem(sys.modules, "tokenspeed_mla", found)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    # The layer of these tests is TRITON_MLA's.
    monkeypatch.setattr("mla_tune.vllm.plugin.layers.plain_dtype", lambda _: "fp8")
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    workspace.start_workspace(torch.device("cpu"))
    yield found
    workspace.stop_workspace()
    sys.modules.pop(MODULE, None)


def _has_floor() -> bool:
    from vllm.config import AttentionConfig
    from vllm.v1.attention.backend import MLAAttentionImpl

    known = FLOOR in AttentionConfig.__dataclass_fields__
    return known and hasattr(MLAAttentionImpl, "reserve_workspace")


needs_floor = pytest.mark.skipif(
    not _has_floor(), reason="vLLM before 0.33 has no floor, or reserves no workspace for it"
)


@pytest.fixture
def load(package: Package, write_table: WriteTable, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load a model as vLLM does: impl first, builder later. Returns the builder's engine, impl."""

    def loaded(*entries: Entry, mode: str = "eager", **config: Any) -> tuple[Engine, Any]:
        assert package is sys.modules["tokenspeed_mla"]
        header = cpu_header("TOKENSPEED_MLA", mode=mode, kv_cache_dtype="fp8")
        monkeypatch.setenv("MLA_TUNE_TABLES", str(write_table(header, *entries)))
        return load_model("TOKENSPEED_MLA", kv_cache_dtype="fp8", **config)

    return loaded


def forward(impl: Any, metadata: Any) -> int | None:
    """Run the decodes of a batch; the floor that reached the kernel."""
    rows = metadata.num_decode_tokens
    query = torch.zeros(rows, MODEL.num_q_heads, MODEL.latent_dim).to(torch.float8_e4m3fn)
    cache = torch.zeros(1, 64, MODEL.latent_dim).to(torch.float8_e4m3fn)
    layer = SimpleNamespace(_q_scale_float=1.0, _k_scale_float=1.0)
    impl.forward_mqa(query, cache, metadata, layer)
    return sys.modules["tokenspeed_mla"].launched[-1]


@needs_floor
def test_a_floor_is_frozen_into_its_graph_and_no_other(load: Any) -> None:
    engine, impl = load(
        entry("32q1s1k", Plan(min_split_kv=8)),
        entry("q1s1k", UNTUNED),
        mode="graph",
        captures=(1, 32),
    )
    for spec, floor in (("32q1s1k", 8), ("q1s1k", 1)):
        metadata = engine.builder.build_for_cudagraph_capture(engine.batch(spec, longest=4096))
        assert [forward(impl, metadata) for _ in range(2)] == [floor, floor]
    assert (impl._min_split_kv, impl._max_decode_tokens) == (1, 0)
    assert engine.deployment.counts.verified == 1


@needs_floor
def test_the_workspace_is_reserved_while_memory_is_profiled(load: Any, package: Package) -> None:
    engine, impl = load(entry("256q1s1k", Plan(min_split_kv=8)), mode="graph", captures=(256,))
    needed = 256 * 128 * 8 * (MODEL.kv_lora_rank + 1) * 4
    # Floors need more than the bound by SMs that vLLM takes without one.
    assert needed > 148 * MODEL.num_q_heads * 8 * (MODEL.kv_lora_rank + 1) * 4
    impl.reserve_workspace()
    with workspace.fixed_size():
        batch = engine.batch("256q1s1k", longest=4096)
        assert forward(impl, engine.builder.build_for_cudagraph_capture(batch)) == 8
    assert package.sizes[-1] >= needed


@needs_floor
def test_a_floor_without_room_is_left_out(load: Any) -> None:
    engine, impl = load(entry("32q1s1k", Plan(min_split_kv=8)), mode="graph", captures=(32,))
    type(impl)._room = 1000
    batch = engine.batch("32q1s1k", longest=4096)
    assert forward(impl, engine.builder.build_for_cudagraph_capture(batch)) == 1
    assert engine.deployment.counts.capped == 1


@needs_floor
def test_an_operators_own_floor_stays(load: Any) -> None:
    engine, impl = load(entry("32q1s1k", Plan(min_split_kv=8)), mode="graph", captures=(32,))
    engine.builder.vllm_config.attention_config.tokenspeed_mla_min_split_kv = 4
    impl._min_split_kv = 4
    impl._max_decode_tokens = 64
    batch = engine.batch("32q1s1k", longest=4096)
    assert forward(impl, engine.builder.build_for_cudagraph_capture(batch)) == 4


@pytest.mark.skipif(_has_floor(), reason="vLLM 0.33 on has both")
def test_a_floor_is_a_miss_where_its_workspace_cannot_be_reserved(load: Any) -> None:
    engine, impl = load(entry("32q1s1k", Plan(min_split_kv=8)), mode="graph", captures=(32,))
    batch = engine.batch("32q1s1k", longest=4096)
    assert forward(impl, engine.builder.build_for_cudagraph_capture(batch)) in (None, 1)
