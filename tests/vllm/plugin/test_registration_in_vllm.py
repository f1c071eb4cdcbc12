"""The registry of the installed vLLM, with and without tables."""

import importlib.metadata
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from mla_tune.plan.plan import UNTUNED
from tabled_engine import WriteTable, cpu_header, entry

# Triton decides at its import whether it interprets, and vLLM imports it.
os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
pytest.importorskip("vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.usefixtures("a_gpus_worth_of_units")]

from vllm_on_cpu import (  # noqa: E402
    load_plugins,
    registry,
)


def test_the_entry_point_is_installed() -> None:
    points = importlib.metadata.entry_points(group="vllm.general_plugins")
    assert "mla_tune.vllm.plugin:register" in {point.value for point in points}


def test_without_tables_the_registry_stays_vllms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLA_TUNE_TABLES", raising=False)
    load_plugins()
    assert not registry().TRITON_MLA.is_overridden()


def test_the_registry_resolves_to_our_subclasses(plugin: Any, graph_table: Path) -> None:
    vllms = registry().TRITON_MLA.get_class()
    plugin(graph_table)
    plugin(graph_table)  # again, as vLLM may
    ours = registry().TRITON_MLA.get_class()
    assert ours.__module__ == "mla_tune.vllm.plugin.triton_mla"
    assert issubclass(ours, vllms)
    assert ours.get_name() == "TRITON_MLA"
    assert issubclass(ours.get_builder_cls(), vllms.get_builder_cls())
    assert issubclass(ours.get_impl_cls(), vllms.get_impl_cls())
    assert not registry().FLASHMLA.is_overridden()


@pytest.mark.parametrize("name", ["TOKENSPEED_MLA", "FLASHMLA"])
def test_every_family_stands_on_the_installed_vllm(
    plugin: Any, write_table: WriteTable, name: str
) -> None:
    """Of the rest, FLASH_ATTN_MLA and CUTLASS_MLA import with stand-ins, FLASHINFER_MLA not."""
    from vllm.utils.import_utils import resolve_obj_by_qualname

    plugin(write_table(cpu_header(name), entry("8q1s1k", UNTUNED)))
    ours = registry()[name].get_class()
    assert ours.__module__.startswith("mla_tune.vllm.plugin.")
    assert ours.get_name() == name
    assert ours.get_builder_cls().mla_tune_backend == name
    # The platform of CUDA finds the class, and gives vLLM's selector this path of it.
    assert resolve_obj_by_qualname(".".join(ours.full_cls_name())) is ours


def test_a_subclass_that_cannot_be_defined_leaves_vllms_own(
    plugin: Any, graph_table: Path, monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    plugin(graph_table)
    monkeypatch.setitem(sys.modules, "mla_tune.vllm.plugin.triton_mla", None)
    found = registry().TRITON_MLA.get_class()
    assert found.__module__ == "vllm.v1.attention.backends.mla.triton_mla"
    assert any(message.startswith("ERROR mla-tune: TRITON_MLA runs as") for message in messages)


def test_another_plugins_override_is_left_alone(
    plugin: Any, graph_table: Path, messages: list[str]
) -> None:
    from vllm.v1.attention.backends.registry import register_backend

    register_backend(registry().TRITON_MLA, "somewhere.else.Backend")
    plugin(graph_table)
    assert registry().TRITON_MLA.get_path() == "somewhere.else.Backend"
    assert any("already overridden" in message for message in messages)


def test_recording_needs_no_table_for_the_backend(
    plugin: Any, graph_table: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLA_TUNE_RECORD", str(tmp_path / "served.json"))
    plugin(graph_table)
    assert registry().FLASHMLA.is_overridden()
