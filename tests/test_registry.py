import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mla_tune.errors import InputError
from mla_tune.plan.knob import KNOBS
from mla_tune.registry import (
    BACKENDS,
    canonical_name,
    get_backend,
    session_modules,
    vllm_backend,
)
from mla_tune.shapes.sections import KV_CACHE_DTYPES


def test_names_are_vllms_and_aliases_are_its_benchmarks():
    assert canonical_name("FLASH_ATTN_MLA") == "FLASH_ATTN_MLA"
    assert canonical_name("flashattn_mla") == "FLASH_ATTN_MLA"
    assert canonical_name("flash_attn_mla_sparse") == "FLASH_ATTN_MLA_SPARSE"
    aliases = [alias for backend in BACKENDS for alias in backend.aliases]
    assert len(aliases) == len(set(aliases)) == 12
    assert all(backend.aliases for backend in BACKENDS)


def test_they_are_listed_from_the_most_portable_to_the_most_special():
    assert BACKENDS.names == (
        *("TORCH_MLA", "TRITON_MLA", "FLASH_ATTN_MLA", "FLASHMLA"),
        *("CUTLASS_MLA", "FLASHINFER_MLA", "TOKENSPEED_MLA"),
        *("FLASH_ATTN_MLA_SPARSE", "FLASHMLA_SPARSE", "FLASHINFER_MLA_SPARSE"),
    )


def test_one_more_is_there_for_a_while_and_none_twice():
    more = replace(vllm_backend("TRITON_MLA"), name="PTX_MLA", aliases=("ptx",))
    with BACKENDS.registered(more):
        assert get_backend("ptx") is more
        with pytest.raises(ValueError, match="PTX_MLA already"), BACKENDS.registered(more):
            pass
        assert get_backend("PTX_MLA") is more
    assert "PTX_MLA" not in BACKENDS


def test_torch_is_no_backend_of_vllm():
    with pytest.raises(KeyError):
        vllm_backend("TORCH_MLA")


def test_an_unknown_name_lists_the_known_ones_and_suggests_the_nearest():
    with pytest.raises(InputError) as caught:
        canonical_name("TRITON_MAL")
    assert "unknown backend 'TRITON_MAL'" in caught.value.what
    assert all(name in caught.value.valid for name in BACKENDS.names)
    assert "'TRITON_MLA'" in caught.value.remedy


@pytest.mark.parametrize("name", BACKENDS.names)
def test_every_backend_states_its_facts_without_a_device(name):
    backend = get_backend(name)
    assert backend.name == name
    assert set(backend.knobs) <= set(backend.bounds) <= set(KNOBS)
    assert set(backend.modes) <= {"eager", "graph"}
    assert backend.kv_cache_dtypes
    assert set(backend.kv_cache_dtypes) <= set(KV_CACHE_DTYPES)


@pytest.mark.parametrize("name", ["TORCH_MLA", "TRITON_MLA", "FLASH_ATTN_MLA"])
def test_what_a_session_imports_ahead_is_there(name):
    modules = session_modules(name, "cuda:1")
    assert any(name in ("torch", "vllm.config") for name in modules)
    for module in modules:
        package, _, rest = module.partition(".")
        spec = importlib.util.find_spec(package)
        if spec is None:
            pytest.skip(f"{package} is not installed")
        path = Path(spec.origin).parent.joinpath(*rest.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), module
    assert not [module for module in session_modules(name, "cpu") if "vllm" in module]


def test_nothing_heavy_is_loaded_to_know_the_facts():
    # Torch costs a second at the start, and another one after Ctrl-C.
    program = """
import sys
from mla_tune.registry import BACKENDS
from mla_tune.session import Setup
from mla_tune.environment import Environment
from mla_tune.shapes import PRESETS, BatchShape

here = Environment("CPU", None, 2, 16.0, {}, {})
shape = BatchShape.parse("8q1s1k")
for backend in BACKENDS:
    backend.unavailable(here)
    backend.supports("eager", shape)
    assert backend.estimate_bytes(Setup(backend.name, PRESETS["deepseek-v3"]), [shape]) > 0
print([name for name in ("torch", "vllm", "optuna") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
