# ruff: noqa: ARG001, ARG005
"""The facts about vLLM's backends, without vLLM."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mla_tune.environment import Environment
from mla_tune.errors import UnavailableError
from mla_tune.registry import BACKENDS, get_backend
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, MlaDimensions
from mla_tune.vllm import backends, compat
from mla_tune.vllm.backend import VllmBackend
from mla_tune.vllm.backends import found
from mla_tune.vllm.prefill import PREFILL_BACKENDS
from mla_tune.vllm.session.ahead import AheadCompiler

H200 = Environment("NVIDIA H200", "9.0", 132, 139.8, {"vllm": "0.26.0"}, {})
B200 = dataclasses.replace(H200, device_name="NVIDIA B200", compute_capability="10.0")
CPU = Environment("Some CPU", None, 8, 32.0, {"vllm": "0.26.0"}, {})


@pytest.fixture
def with_vllm(monkeypatch):
    """Pretend that vLLM 0.26.0 is installed, with all of its extensions."""
    monkeypatch.setattr(compat, "release", lambda: (0, 26, 0))
    monkeypatch.setattr(compat, "backend_source", lambda name: Path(name))
    monkeypatch.setattr(VllmBackend, "_extension_problem", lambda self: None)


def test_registry_holds_every_backend_of_vllm():
    assert {backend.name for backend in found()} == set(BACKENDS.names) - {"TORCH_MLA"}


def test_every_file_is_a_backend_and_is_called_as_it_is():
    folder = Path(backends.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert {backend.name.lower() for backend in found()} == files


def test_importing_the_facts_imports_neither_vllm_nor_torch():
    code = "import sys, mla_tune.registry\nprint({'vllm', 'torch', 'triton'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_missing_vllm_comes_first():
    nothing = dataclasses.replace(CPU, software={})
    for backend in found():
        reason = backend.unavailable(nothing)
        assert reason == "vLLM is not installed: pip install 'mla-tune[vllm]'"


def test_too_old_a_release_is_named(monkeypatch):
    monkeypatch.setattr(compat, "release", lambda: (0, 19, 1))
    reason = get_backend("TRITON_MLA").unavailable(H200)
    assert reason is not None
    assert "0.19.1" in reason
    assert "0.20.2" in reason


def test_a_build_that_hides_its_release_is_not_called_old(monkeypatch):
    monkeypatch.setattr(compat, "installed", lambda: "0.1.dev5+gabc")
    reason = get_backend("TRITON_MLA").unavailable(H200)
    assert reason == (
        "vLLM 0.1.dev5+gabc was built without git tags and does not say what release it is of"
    )


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("0.33rc1", (0, 33, 0)), ("0.26.0+cu130", (0, 26, 0)), ("0.23.1rc1.dev7", (0, 23, 1))],
)
def test_the_release_is_read_as_a_version(monkeypatch, version, numbers):
    monkeypatch.setattr(compat, "installed", lambda: version)
    assert compat.release() == numbers


def test_a_backend_that_the_release_lacks_is_named_before_the_hardware(with_vllm, monkeypatch):
    monkeypatch.setattr(compat, "backend_source", lambda name: None)
    assert get_backend("TOKENSPEED_MLA").unavailable(H200) == (
        "vLLM 0.26.0 has no backend TOKENSPEED_MLA"
    )


@pytest.mark.usefixtures("with_vllm")
class TestHardware:
    def test_capability_that_is_needed_and_found(self):
        assert get_backend("CUTLASS_MLA").unavailable(H200) == (
            "needs compute capability 10.x, this is 9.0 (NVIDIA H200)"
        )
        assert get_backend("FLASH_ATTN_MLA").unavailable(B200) == (
            "needs compute capability 9.x, this is 10.0 (NVIDIA B200)"
        )

    def test_what_runs_on_which(self):
        def running(environment):
            return {b.name for b in found() if b.unavailable(environment) is None}

        assert running(H200) == {
            "TRITON_MLA",
            "FLASH_ATTN_MLA",
            "FLASHMLA",
            "FLASHMLA_SPARSE",
            "FLASH_ATTN_MLA_SPARSE",
        }
        assert running(B200) == {
            "TRITON_MLA",
            "CUTLASS_MLA",
            "FLASHINFER_MLA",
            "TOKENSPEED_MLA",
            "FLASHMLA_SPARSE",
            "FLASHINFER_MLA_SPARSE",
        }

    def test_cpu_only_through_the_interpreter(self, monkeypatch):
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        assert get_backend("TRITON_MLA").unavailable(CPU) == "needs a CUDA GPU, this is Some CPU"
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        assert get_backend("TRITON_MLA").unavailable(CPU) is None
        assert get_backend("FLASHMLA").unavailable(CPU) is not None

    def test_open_refuses_with_the_same_reason(self, monkeypatch):
        monkeypatch.setattr("mla_tune.vllm.backend.described", lambda device: H200)
        setup = Setup("CUTLASS_MLA", MlaDimensions(16), device="cuda")
        with pytest.raises(UnavailableError, match=r"needs compute capability 10\.x"):
            get_backend("CUTLASS_MLA").open(setup)

    def test_open_names_the_kv_dtypes_there_are(self, monkeypatch):
        monkeypatch.setattr("mla_tune.vllm.backend.described", lambda device: H200)
        setup = Setup("FLASH_ATTN_MLA", MlaDimensions(16), kv_cache_dtype="fp8", device="cuda")
        with pytest.raises(UnavailableError, match="auto, bfloat16"):
            get_backend("FLASH_ATTN_MLA").open(setup)


@pytest.mark.parametrize(
    ("backend", "imported", "starts"),
    [("TRITON_MLA", False, 1), ("TRITON_MLA", True, 0), ("FLASH_ATTN_MLA", False, 0)],
)
def test_the_compiler_starts_beside_the_imports_and_ends_with_a_session_that_fails(
    monkeypatch, backend, imported, starts
):
    told = []

    def fails(setup, backend):
        told.append("build")
        raise UnavailableError("no such layer")

    monkeypatch.setattr("mla_tune.vllm.backend.described", lambda device: H200)
    monkeypatch.setattr(VllmBackend, "unavailable", lambda self, environment: None)
    monkeypatch.setattr("mla_tune.vllm.session.parts.build_parts", fails)
    monkeypatch.setattr(AheadCompiler, "start", lambda self: told.append("start"))
    monkeypatch.setattr(AheadCompiler, "close", lambda self: told.append("close"))
    monkeypatch.setitem(sys.modules, "vllm.config", object())
    if not imported:
        monkeypatch.delitem(sys.modules, "vllm.config")
    with pytest.raises(UnavailableError, match="no such layer"):
        get_backend(backend).open(Setup(backend, MlaDimensions(16), device="cuda"))
    assert told == ["start"] * starts + ["build", "close"]


def test_missing_extension_is_named(monkeypatch):
    monkeypatch.setattr(compat, "release", lambda: (0, 26, 0))
    monkeypatch.setattr(compat, "backend_source", lambda name: Path(name))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert get_backend("FLASHINFER_MLA").unavailable(B200) == (
        "the package flashinfer is not installed"
    )


class TestEstimate:
    def setup_for(self, name, heads=16, **changes):
        return Setup(name, MlaDimensions(heads), **changes)

    def test_cache_alone(self):
        setup = self.setup_for("FLASHMLA")
        shape = BatchShape.parse("128q1s32k")
        cache = 128 * 32768 * 576 * 2
        estimate = get_backend("FLASHMLA").estimate_bytes(setup, [shape])
        assert cache < estimate < 1.2 * cache

    def test_a_workload_pages_through_the_cache_of_its_largest_shape(self):
        setup = self.setup_for("FLASHMLA", mode="graph")
        shapes = [BatchShape.parse(f"128q1s{kv_len}") for kv_len in ("32k", "16k", "8k")]
        one, three = (
            get_backend("FLASHMLA").estimate_bytes(setup, some) for some in (shapes[:1], shapes)
        )
        inputs = 2 * 128 * (131072 // 64) * 4 + 2 * 128 * 16 * 192 * 2
        assert inputs < three - one < 2**30

    def test_prefill_counts_keys_and_values(self):
        setup = self.setup_for("FLASHMLA", heads=128)
        extend = get_backend("FLASHMLA").estimate_bytes(setup, [BatchShape.parse("q512s64k")])
        # 64k tokens, 128 heads, 256 up-projected and 192 assembled values of 2 bytes: 7 GB.
        assert extend > 65536 * 128 * 448 * 2


def test_the_prefill_backends_of_the_installed_vllm_may_stand_in_a_table():
    source = compat.backend_source("triton_mla")
    if source is None or not (source.parent / "prefill").is_dir():
        pytest.skip("needs a vLLM with prefill backends")
    named = set()
    for file in (source.parent / "prefill").glob("*.py"):
        named |= set(re.findall(r'def get_name\(\)[^"]*"([A-Z_]+)"', file.read_text()))
    assert {"FLASH_ATTN", "TRTLLM_RAGGED"} <= named
    short = {kind.member: name for name, kind in PREFILL_BACKENDS.items()}
    known = {short.get(member, member.lower()) for member in named}
    assert known <= set(PREFILL_BACKENDS)
