"""A state of the plugin of its own for each test, and tables for the installed vLLM on a CPU."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from plugin_state import fresh_plugin

from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.vllm.plugin.state import PluginState
from tabled_engine import WriteTable, cpu_header, entry


@pytest.fixture(autouse=True)
def plugin_state() -> Iterator[PluginState]:
    with fresh_plugin() as state:
        yield state


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Load the plugin with these tables, through its installed entry point."""
    from vllm_on_cpu import load_plugins

    def load(*tables: Path) -> None:
        monkeypatch.setenv("MLA_TUNE_TABLES", ":".join(map(str, tables)))
        load_plugins()

    return load


@pytest.fixture
def a_gpus_worth_of_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as an H200 has, or two cores would cap every split count at four."""
    from vllm.platforms.cpu import CpuPlatform

    monkeypatch.setattr(CpuPlatform, "num_compute_units", classmethod(lambda *_: 132))


@pytest.fixture
def graph_table(write_table: WriteTable) -> Path:
    return write_table(
        cpu_header(),
        entry("2q1s{128,256}", Plan(num_kv_splits=4)),
        entry("8q1s128", UNTUNED),
        entry("32q1s128", Plan(num_kv_splits=2)),
    )


@pytest.fixture
def eager_table(write_table: WriteTable) -> Path:
    return write_table(
        cpu_header(mode="eager"),
        entry("2q1s128", Plan(num_kv_splits=2)),
        entry("4q32s256", Plan(reorder_batch_threshold=32)),
    )


@pytest.fixture
def flash_attn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """vLLM's own FLASH_ATTN_MLA builder, with its two CUDA functions left out.

    Returns the caps that its scheduler is called with.
    """
    from vllm_on_cpu import FLASH_ATTN_MODULES, leave_out_flash_attention

    yield leave_out_flash_attention(monkeypatch)
    for name in FLASH_ATTN_MODULES:
        sys.modules.pop(name, None)
