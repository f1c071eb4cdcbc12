"""CUTLASS_MLA's splits and their workspace, in vLLM's own Python over a stand-in for the kernel."""

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
from vllm_on_cpu import Engine, impl_of, load_model  # noqa: E402

from mla_tune.plan.plan import UNTUNED, Plan  # noqa: E402
from mla_tune.table import Entry  # noqa: E402
from mla_tune.vllm.cutlass_workspace import workspace_bytes  # noqa: E402
from mla_tune.vllm.plugin.state import PluginState  # noqa: E402
from tabled_engine import MODEL, WriteTable, cpu_header, entry  # noqa: E402

SM_COUNT = 148
VLLMS_BYTES = 128 * 2**20
MODULES = ("vllm.v1.attention.backends.mla.cutlass_mla", "mla_tune.vllm.plugin.cutlass_mla")


class Kernel:
    """What vLLM's extension does with sizes; it notes the splits of every launch."""

    def __init__(self) -> None:
        self.launched: list[int] = []

    def sm100_cutlass_mla_get_workspace_size(
        self, max_seq_len: int, num_batches: int, sm_count: int, num_kv_splits: int
    ) -> int:
        splits = num_kv_splits
        if splits < 1:
            splits = min(16, -(-max_seq_len // 128), max(1, sm_count // num_batches))
        return workspace_bytes(num_batches, splits)

    def sm100_cutlass_mla_decode(self, *arguments: Any) -> None:
        self.launched.append(arguments[-1])


@pytest.fixture
def cutlass(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """vLLM's own CUTLASS_MLA module, whose import allocates on a GPU, over `Kernel`."""
    import vllm.utils.platform_utils

    empty = torch.empty
    monkeypatch.setattr(vllm.utils.platform_utils, "num_compute_units", lambda _: SM_COUNT)
    monkeypatch.setattr(torch, "empty", lambda *size, **kind: empty(*size, dtype=kind["dtype"]))
    for module in MODULES:
        monkeypatch.delitem(sys.modules, module, raising=False)
    import vllm.v1.attention.backends.mla.cutlass_mla as cutlass_mla

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(cutlass_mla, "ops", Kernel())
    yield cutlass_mla
    for module in MODULES:
        sys.modules.pop(module, None)


@pytest.fixture
def load(cutlass: Any, write_table: WriteTable, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load a model as vLLM does: impl first, builder later. Returns the builder's engine, impl."""

    def loaded(*entries: Entry, mode: str = "eager", **config: Any) -> tuple[Engine, Any]:
        assert cutlass.__name__ in sys.modules
        path = write_table(cpu_header("CUTLASS_MLA", mode=mode), *entries)
        monkeypatch.setenv("MLA_TUNE_TABLES", str(path))
        return load_model("CUTLASS_MLA", **config)

    return loaded


def forward(impl: Any, metadata: Any) -> int:
    """Run the decodes of a batch; the splits that reached the kernel."""
    rows = metadata.num_decode_tokens
    query = torch.zeros(rows, 128, MODEL.latent_dim, dtype=torch.float16)
    cache = torch.zeros(1, 128, MODEL.latent_dim, dtype=torch.float16)
    impl.forward_mqa(query, cache, metadata, SimpleNamespace(_q_scale_float=1, _k_scale_float=1))
    return int(sys.modules[MODULES[0]].ops.launched[-1])


def buffer(cutlass: Any) -> torch.Tensor:
    found: torch.Tensor = cutlass.g_sm100_workspace.get_buf()
    return found


def test_splits_are_frozen_into_their_graph_and_no_other(load: Any) -> None:
    engine, impl = load(
        entry("32q1s128", Plan(num_kv_splits=8)),
        entry("q1s128", UNTUNED),
        mode="graph",
        captures=(1, 32),
    )
    for spec, splits in (("32q1s128", 8), ("q1s128", -1)):
        metadata = engine.builder.build_for_cudagraph_capture(engine.batch(spec, longest=4096))
        assert [forward(impl, metadata) for _ in range(2)] == [splits, splits]
    assert impl._num_kv_splits == -1
    assert engine.deployment.counts.verified == 1


def test_the_workspace_stays_where_captured_graphs_saw_it(cutlass: Any, load: Any) -> None:
    """vLLM multiplies the decodes' splits by all requests: 34 x 16 = 544, and 511 are there."""
    engine, impl = load(entry("4q1s128", Plan(num_kv_splits=16)))
    buffer(cutlass).resize_(VLLMS_BYTES)  # as without the room for prefills beside them
    captured = buffer(cutlass).data_ptr()
    decodes = engine.builder.build(0, engine.batch("4q1s128"))
    assert forward(impl, decodes) == 16
    mixed = engine.builder.build(0, engine.batch("30q8s128_4q1s128"))
    assert (mixed.num_reqs, mixed.num_decodes) == (34, 4)
    assert forward(impl, mixed) == -1
    assert buffer(cutlass).data_ptr() == captured
    assert engine.deployment.counts.capped == 1
    fewer = engine.builder.build(0, engine.batch("27q8s128_4q1s128"))
    assert forward(impl, fewer) == 16
    assert buffer(cutlass).data_ptr() == captured


def test_room_for_prefills_is_reserved_while_the_model_is_loaded(cutlass: Any, load: Any) -> None:
    engine, impl = load(entry("4q1s128", Plan(num_kv_splits=16)))
    reserved = buffer(cutlass).data_ptr()
    # The entry's decodes, and 32 prefills.
    assert buffer(cutlass).shape[0] == (4 + 32) * 16 * 128 * 513 * 4
    mixed = engine.builder.build(0, engine.batch("30q8s128_4q1s128"))
    assert forward(impl, mixed) == 16
    assert buffer(cutlass).data_ptr() == reserved


def test_a_graph_needs_room_for_its_own_size_alone(cutlass: Any, load: Any) -> None:
    engine, impl = load(entry("48q1s128", Plan(num_kv_splits=16)), mode="graph", captures=(48,))
    reserved = buffer(cutlass).data_ptr()
    assert buffer(cutlass).shape[0] == 48 * 16 * 128 * 513 * 4
    batch = engine.batch("48q1s128", longest=4096)
    assert forward(impl, engine.builder.build_for_cudagraph_capture(batch)) == 16
    assert buffer(cutlass).data_ptr() == reserved


def test_no_more_rows_are_reserved_than_an_engine_has(cutlass: Any, load: Any) -> None:
    load(entry("48q1s128", Plan(num_kv_splits=16)))
    assert buffer(cutlass).shape[0] == 64 * 16 * 128 * 513 * 4  # max_num_seqs


@pytest.mark.parametrize(
    ("wanted", "rows", "row_splits"),
    [
        ((512, 16), 1024, 2**30 // (128 * 513 * 4)),  # bounded
        ((4, 2), 1024, 1024),  # vLLM's own choice of one split of 1024 requests
        ((4, 32), 64, SM_COUNT),  # splits that never act reserve nothing
        ((4, -1), 64, SM_COUNT),
    ],
)
def test_what_is_reserved_is_bounded(
    cutlass: Any, wanted: tuple[int, int], rows: int, row_splits: int
) -> None:
    del cutlass
    from mla_tune.vllm.plugin.cutlass_mla import room_wanted

    room = room_wanted([wanted], rows=rows, sm_count=SM_COUNT)
    assert room // (128 * 513 * 4) == row_splits


def test_rows_include_those_that_pad_a_graph() -> None:
    from mla_tune.vllm.plugin.engine import most_requests

    sizes = SimpleNamespace(cudagraph_capture_sizes=[1, 2, 4, 8, 16, 24, 32, 40])
    config = SimpleNamespace(
        compilation_config=sizes, scheduler_config=SimpleNamespace(max_num_seqs=30)
    )
    assert most_requests(config) == 32
    config.scheduler_config.max_num_seqs = 100
    assert most_requests(config) == 100


def test_a_table_of_another_engine_reserves_nothing(
    cutlass: Any, load: Any, plugin_state: PluginState
) -> None:
    load(entry("48q1s128", Plan(num_kv_splits=16)))
    buffer(cutlass).resize_(VLLMS_BYTES)
    header = plugin_state.tables[0].table.header
    object.__setattr__(header, "kv_cache_dtype", "fp8")
    impl_cls = sys.modules[MODULES[1]].TunedCutlassMLAImpl
    impl_of(impl_cls)
    assert buffer(cutlass).shape[0] == VLLMS_BYTES
