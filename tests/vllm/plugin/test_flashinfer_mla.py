"""FLASHINFER_MLA's kernel, in vLLM's own Python over a stand-in for the package."""

import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
pytest.importorskip("vllm")
pytestmark = pytest.mark.vllm

import torch  # noqa: E402
from vllm_on_cpu import Engine, load_model  # noqa: E402

from mla_tune.plan.blocks import BlockSizes  # noqa: E402
from mla_tune.plan.plan import UNTUNED, Plan  # noqa: E402
from mla_tune.session import Setup  # noqa: E402
from mla_tune.shapes import BatchShape  # noqa: E402
from mla_tune.table import Entry  # noqa: E402
from mla_tune.vllm.backends.flashinfer_mla import (  # noqa: E402
    AUTO,
    BACKEND,
    CUTE_DSL,
    TRTLLM_GEN,
)
from mla_tune.vllm.session.parts import build_parts  # noqa: E402
from mla_tune.vllm.session.session import VllmSession  # noqa: E402
from tabled_engine import MODEL, WriteTable, cpu_header, entry  # noqa: E402

MODULES = (
    "vllm.v1.attention.backends.mla.flashinfer_mla",
    "mla_tune.vllm.plugin.flashinfer_mla",
)
SM_COUNT = 148


class Package:
    """What the package refuses, and the kernel of every call."""

    def __init__(self) -> None:
        self.launched: list[str] = []

    def trtllm_batch_decode_with_kv_cache_mla(
        self,
        query: torch.Tensor,
        kv_cache: torch.Tensor,
        block_tables: torch.Tensor,
        backend: str = AUTO,
        multi_ctas_kv_counter_buffer: torch.Tensor | None = None,
        return_lse: bool = False,
        **_: Any,
    ) -> Any:
        if backend == CUTE_DSL:
            assert multi_ctas_kv_counter_buffer is None, "only supported by the trtllm-gen backend"
            assert block_tables.shape[-1] * kv_cache.shape[-2] % 128 == 0
        self.launched.append(backend)
        output = torch.zeros(*query.shape[:-1], MODEL.kv_lora_rank, dtype=query.dtype)
        return (output, torch.zeros(query.shape[:-1])) if return_lse else output


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """vLLM's own module over `Package`: the real one asks for a GPU when it is imported."""
    found = Package()
    decode, utils = ModuleType("flashinfer.decode"), ModuleType("flashinfer.utils")
    vars(decode)["trtllm_batch_decode_with_kv_cache_mla"] = (
        found.trtllm_batch_decode_with_kv_cache_mla
    )
    vars(utils)["get_device_sm_count"] = lambda _: SM_COUNT
    vars(utils)["get_trtllm_gen_multi_ctas_kv_counter_bytes"] = lambda *_: 1024
    for module in MODULES:
        monkeypatch.delitem(sys.modules, module, raising=False)
    # What asks whether there is a real one has to be there already.
    importlib.import_module("vllm.model_executor.layers.attention.mla_attention")
    with monkeypatch.context() as importing:
        importing.setitem(sys.modules, "flashinfer", ModuleType("flashinfer"))
        importing.setitem(sys.modules, "flashinfer.decode", decode)
        importing.setitem(sys.modules, "flashinfer.utils", utils)
        import vllm.v1.attention.backends.mla.flashinfer_mla as flashinfer_mla
    buffer = torch.zeros(1024, dtype=torch.int8)
    monkeypatch.setattr(flashinfer_mla, "_get_workspace_buffer", lambda *_: buffer)
    yield found
    for module in MODULES:
        sys.modules.pop(module, None)


def _has_choice() -> bool:
    from mla_tune.vllm.compat import since

    return since((0, 32))


needs_choice = pytest.mark.skipif(not _has_choice(), reason="vLLM before 0.32 knows one kernel")


@pytest.fixture
def load(package: Package, write_table: WriteTable, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load a model as vLLM does: impl first, builder later. Returns the builder's engine, impl."""

    def loaded(*entries: Entry, mode: str = "graph", **config: Any) -> tuple[Engine, Any]:
        assert not package.launched
        header = cpu_header("FLASHINFER_MLA", mode=mode)
        monkeypatch.setenv("MLA_TUNE_TABLES", str(write_table(header, *entries)))
        return load_model("FLASHINFER_MLA", **config)

    return loaded


def forward(impl: Any, metadata: Any, package: Package) -> str:
    """Run the decodes of a batch; the kernel that FlashInfer was asked for."""
    rows = metadata.num_decode_tokens
    query = torch.zeros(rows, MODEL.num_q_heads, MODEL.latent_dim)
    cache = torch.zeros(1, 32, MODEL.latent_dim)
    impl.forward_mqa(query, cache, metadata, SimpleNamespace())
    return package.launched[-1]


def captured(engine: Engine, spec: str) -> Any:
    return engine.builder.build_for_cudagraph_capture(engine.batch(spec, longest=4096))


@needs_choice
def test_a_kernel_is_frozen_into_its_graph_and_no_other(load: Any, package: Package) -> None:
    engine, impl = load(
        entry("32q1s1k", Plan(decode_kernel=CUTE_DSL)),
        entry("8q1s1k", Plan(decode_kernel=TRTLLM_GEN)),
        entry("q1s1k", UNTUNED),
        captures=(1, 8, 32),
    )
    kernels = {"32q1s1k": CUTE_DSL, "8q1s1k": TRTLLM_GEN, "q1s1k": AUTO}
    graphs = {spec: captured(engine, spec) for spec in kernels}
    for spec, kernel in [*kernels.items(), *kernels.items()]:
        assert forward(impl, graphs[spec], package) == kernel
    assert engine.deployment.counts.verified == 2
    assert engine.deployment.counts.not_applied == 0


@needs_choice
def test_an_eager_step_gets_its_own(load: Any, package: Package) -> None:
    engine, impl = load(
        entry("32q1s1k", Plan(decode_kernel=CUTE_DSL)), entry("8q1s1k", UNTUNED), mode="eager"
    )
    for spec, kernel in (("32q1s1k", CUTE_DSL), ("8q1s1k", AUTO), ("32q1s1k", CUTE_DSL)):
        metadata = engine.builder.build(0, engine.batch(spec))
        assert forward(impl, metadata, package) == kernel


@needs_choice
def test_under_context_parallelism_vllm_s_own_stays(load: Any, package: Package) -> None:
    engine, impl = load(entry("32q1s1k", Plan(decode_kernel=TRTLLM_GEN)), captures=(32,))
    engine.config.parallel_config.decode_context_parallel_size = 2
    engine.builder.note_vllms_own()
    assert forward(impl, captured(engine, "32q1s1k"), package) == AUTO
    assert engine.deployment.counts.not_applied == 0


@needs_choice
@pytest.mark.parametrize("short_of", ["room", "pages"])
def test_cute_dsl_is_left_out_where_it_would_raise(
    load: Any, package: Package, monkeypatch: pytest.MonkeyPatch, short_of: str
) -> None:
    engine, impl = load(entry("32q1s1k", Plan(decode_kernel=CUTE_DSL)), captures=(32,))
    batch = engine.batch("32q1s1k", longest=4096)
    if short_of == "room":
        module = sys.modules[MODULES[0]]
        monkeypatch.setattr(module, "FLASHINFER_MLA_WORKSPACE_BUFFER_SIZE", 2**20)
    else:
        batch.block_table_tensor = batch.block_table_tensor[:, :-1]
    assert forward(impl, engine.builder.build_for_cudagraph_capture(batch), package) == AUTO
    assert engine.deployment.counts.capped == 1


@needs_choice
def test_a_kernel_that_does_not_arrive_is_said(
    load: Any, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, impl = load(entry("32q1s1k", Plan(decode_kernel=TRTLLM_GEN)), captures=(32,))
    metadata = captured(engine, "32q1s1k")
    # As a release would that names a kernel where it named none before.
    monkeypatch.setattr(sys.modules[MODULES[0]], "_select_mla_decode_backend", lambda _: CUTE_DSL)
    assert forward(impl, metadata, package) == CUTE_DSL
    assert engine.deployment.counts.not_applied == 1


@needs_choice
@pytest.mark.parametrize(
    ("mode", "kernels"), [("graph", [AUTO, TRTLLM_GEN, CUTE_DSL]), ("eager", [AUTO])]
)
def test_a_session_has_each_kernel_arrive(
    package: Package, monkeypatch: pytest.MonkeyPatch, mode: str, kernels: list[str]
) -> None:
    """On a CPU vLLM has blocks of 16 tokens alone."""
    backend = sys.modules[MODULES[0]].FlashInferMLABackend
    monkeypatch.setattr(backend, "get_supported_kernel_block_sizes", lambda *_: [16])
    setup = Setup(
        *("FLASHINFER_MLA", MODEL),
        mode=mode,
        max_model_len=4000,
        max_num_requests=8,
        max_num_query_tokens=64,
    )
    parts = build_parts(setup, replace(BACKEND, blocks=BlockSizes((16,))))
    session, shape = VllmSession(setup, parts), BatchShape.parse("2q1s200")
    session.load([shape])
    for plan in session.plan_space([shape]).plans:
        # It raises if another kernel arrives.
        with session.prepare(shape, plan).applied():
            pass
    session.close()
    assert package.launched == kernels
