"""The prefill backend that dispatches by batch, over stand-ins for the kernels."""

import os
from types import SimpleNamespace
from typing import Any

import pytest

os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
pytest.importorskip("vllm")
pytestmark = pytest.mark.vllm

import vllm_on_cpu  # noqa: E402, F401
from tabled_engine import WriteTable, cpu_header, entry  # noqa: E402

from mla_tune.knobs import Plan  # noqa: E402


class Other:
    """An implementation that a table may name."""

    def __init__(self) -> None:
        self.metadata: object = None

    def prepare_metadata(self, metadata: object) -> None:
        self.metadata = metadata

    def supports_out(self) -> bool:
        return False

    def run_prefill_new_tokens(self, **_: object) -> str:
        return "other"

    def run_prefill_context_chunk(self, **_: object) -> str:
        return "other's chunk"


@pytest.fixture(autouse=True)
def cuda_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """What vLLM's module imports and a CPU platform does not have."""
    import vllm.v1.attention.backends.fa_utils as fa_utils

    name = "compile_flash_attn_varlen_func_from_specs"
    monkeypatch.setattr(fa_utils, name, None, raising=False)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    from mla_tune.runtime import prefill

    def own(self: object, **_: object) -> str:
        del self
        return "vllm's"

    vllms = prefill.VllmPrefillBackend
    monkeypatch.setattr(vllms, "__init__", lambda self, **kwargs: vars(self).update(kwargs))
    monkeypatch.setattr(vllms, "run_prefill_new_tokens", own)
    monkeypatch.setattr(vllms, "run_prefill_context_chunk", own)
    monkeypatch.setattr(vllms, "supports_out", lambda _: True)
    config = SimpleNamespace(attention_config=SimpleNamespace(mla_prefill_backend=None))
    ours = prefill.TunedFlashAttnPrefillBackend(vllm_config=config)
    ours.vllm_flash_attn_version = 3
    monkeypatch.setattr(ours, "_made", lambda _: Other())
    return ours


def test_each_batch_runs_on_what_was_chosen_for_it(backend: Any) -> None:
    backend.prepare_alternatives({"trtllm", "fa3"})
    assert list(backend._alternatives) == ["trtllm"]  # fa3 is vLLM's own here
    for name, ran in (("trtllm", "other"), (None, "vllm's"), ("fa3", "vllm's")):
        backend.choose(name)
        backend.prepare_metadata("metadata")
        assert backend.run_prefill_new_tokens(q=1) == ran
    backend.choose("trtllm")
    backend.prepare_metadata("newer")
    assert backend._alternatives["trtllm"].metadata == "newer"
    assert backend.run_prefill_context_chunk(q=1) == "other's chunk"


def test_a_promise_of_the_engine_is_kept_by_vllms_own(backend: Any) -> None:
    backend.prepare_alternatives({"trtllm"})
    backend.choose("trtllm")
    backend.prepare_metadata("metadata")
    assert backend.run_prefill_new_tokens(q=1, output_scale=0.5) == "vllm's"
    assert not backend.supports_out()


def test_one_that_does_not_run_is_left_out(
    backend: Any, monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    def fail(name: str) -> None:
        raise ImportError(f"no {name}")

    monkeypatch.setattr(backend, "_made", fail)
    backend.prepare_alternatives({"flashinfer"})
    backend.choose("flashinfer")
    backend.prepare_metadata("metadata")
    assert backend.run_prefill_new_tokens(q=1) == "vllm's"
    assert any("flashinfer does not run" in message for message in messages)


def test_what_the_operator_has_set_stays(backend: Any) -> None:
    backend.vllm_config.attention_config.mla_prefill_backend = "FLASH_ATTN"
    backend.prepare_alternatives({"trtllm"})
    assert backend._alternatives == {}


def test_it_is_registered_when_a_table_names_a_prefill_backend(
    write_table: WriteTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.v1.attention.backends.mla.prefill.registry import MLAPrefillBackendEnum

    from mla_tune.runtime import register

    path = write_table(cpu_header(mode="eager"), entry("q2k", Plan(prefill_backend="trtllm")))
    monkeypatch.setenv("MLA_TUNE_TABLES", str(path))
    register()
    found = MLAPrefillBackendEnum.FLASH_ATTN.get_class()
    assert found.__module__ == "mla_tune.runtime.prefill"
    assert found.get_name() == "FLASH_ATTN"
