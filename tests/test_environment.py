import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from fake_device import ENVIRONMENT
from mla_tune.environment import Environment, probe
from mla_tune.errors import UnavailableError
from mla_tune.registry import get_backend
from mla_tune.session import Setup
from mla_tune.shapes import MlaDimensions
from mla_tune.vllm import compat


def test_the_cpu_is_described_by_name_threads_memory_and_software():
    found = probe("cpu")
    assert found.device_name
    assert not found.is_cuda
    assert found.capability == (0, 0)
    assert found.sm_count == torch.get_num_threads()
    assert found.memory_gib > 0
    # PyPI's build for CUDA leaves its local part out of the metadata.
    assert found.software["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_the_digest_follows_the_software_and_the_kernels():
    newer = replace(ENVIRONMENT, software={"torch": "2.14.0"})
    rebuilt = replace(ENVIRONMENT, kernels={"_C.abi3.so": "0123"})
    patched = replace(ENVIRONMENT, digests={"triton_mla.py": "0123"})
    digests = {e.software_digest for e in (ENVIRONMENT, newer, rebuilt, patched)}
    assert len(digests) == 4
    assert ENVIRONMENT.software_digest == replace(ENVIRONMENT, memory_gib=1.0).software_digest


def test_the_capability_is_read_in_both_its_parts():
    gpu = replace(ENVIRONMENT, compute_capability="10.3")
    assert gpu.is_cuda
    assert gpu.capability == (10, 3)


def test_it_is_plain_data():
    assert Environment(**ENVIRONMENT.as_dict()) == ENVIRONMENT


def test_it_is_read_without_loading_torch():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, mla_tune.environment; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"


@pytest.fixture
def mi300x(monkeypatch):
    """What PyTorch's build for HIP says of an AMD GPU."""
    found = SimpleNamespace(
        name="AMD Instinct MI300X",
        major=9,
        minor=4,
        multi_processor_count=304,
        total_memory=192 * 2**30,
    )
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", "6.4.43482")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: found)
    monkeypatch.setattr(compat, "installed", lambda: "0.33.0")
    monkeypatch.setattr(compat, "backend_source", lambda _name: "a source")


@pytest.mark.usefixtures("mi300x")
def test_an_amd_gpu_is_no_hopper_though_its_capability_is_9_4():
    found = probe("cuda:0")
    assert found.software["hip"] == "6.4.43482"
    assert "cuda" not in found.software
    assert not found.is_cuda
    assert found.capability == (0, 0)
    for name in ("FLASHMLA", "FLASH_ATTN_MLA", "TRITON_MLA"):
        reason = get_backend(name).unavailable(
            replace(found, software={"vllm": "0.33.0", **found.software})
        )
        assert reason == "needs an NVIDIA GPU, this is AMD Instinct MI300X (HIP)"
        with pytest.raises(UnavailableError, match="needs an NVIDIA GPU"):
            get_backend(name).open(Setup(name, MlaDimensions(16), device="cuda:0"))
