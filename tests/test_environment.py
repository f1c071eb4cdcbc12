import subprocess
import sys
from dataclasses import replace

import torch

from fake_device import ENVIRONMENT
from mla_tune.environment import Environment, probe


def test_the_cpu_is_described_by_name_threads_memory_and_software():
    found = probe("cpu")
    assert found.device_name
    assert not found.is_cuda
    assert found.capability == (0, 0)
    assert found.sm_count == torch.get_num_threads()
    assert found.memory_gib > 0
    assert found.software["torch"] == torch.__version__


def test_the_digest_follows_the_software_and_the_kernels():
    newer = replace(ENVIRONMENT, software={"torch": "2.14.0"})
    rebuilt = replace(ENVIRONMENT, kernels={"_C.abi3.so": "0123"})
    digests = {e.software_digest for e in (ENVIRONMENT, newer, rebuilt)}
    assert len(digests) == 3
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
