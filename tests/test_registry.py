import subprocess
import sys

import pytest

from mla_tune.errors import InputError
from mla_tune.plan.knob import KNOBS
from mla_tune.registry import ALIASES, NAMES, canonical_name, get_backend
from mla_tune.shapes.sections import KV_CACHE_DTYPES


def test_names_are_vllms_and_aliases_are_its_benchmarks():
    assert canonical_name("FLASH_ATTN_MLA") == "FLASH_ATTN_MLA"
    assert canonical_name("flashattn_mla") == "FLASH_ATTN_MLA"
    assert set(ALIASES.values()) == set(NAMES)


def test_an_unknown_name_lists_the_known_ones_and_suggests_the_nearest():
    with pytest.raises(InputError) as caught:
        canonical_name("TRITON_MAL")
    assert "unknown backend 'TRITON_MAL'" in caught.value.what
    assert all(name in caught.value.valid for name in NAMES)
    assert "'TRITON_MLA'" in caught.value.remedy


@pytest.mark.parametrize("name", NAMES)
def test_every_backend_states_its_facts_without_a_device(name):
    backend = get_backend(name)
    assert backend.name == name
    assert set(backend.knobs) <= set(KNOBS)
    assert set(backend.modes) <= {"eager", "graph"}
    assert backend.kv_cache_dtypes
    assert set(backend.kv_cache_dtypes) <= set(KV_CACHE_DTYPES)


def test_nothing_heavy_is_loaded_to_know_the_facts():
    # Torch costs a second at the start, and another one after Ctrl-C.
    program = """
import sys
from mla_tune.registry import NAMES, get_backend
from mla_tune.session import Setup
from mla_tune.environment import Environment
from mla_tune.shapes import PRESETS, BatchShape

here = Environment("CPU", None, 2, 16.0, {}, {})
shape = BatchShape.parse("8q1s1k")
for name in NAMES:
    backend = get_backend(name)
    backend.unavailable(here)
    backend.supports("eager", shape)
    assert backend.estimate_bytes(Setup(name, PRESETS["deepseek-v3"]), shape) > 0
print([name for name in ("torch", "vllm", "optuna") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
