"""The plugin's values in the real kernels, in a process of its own."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu


def test_the_plugins_values_reach_the_kernels() -> None:
    import torch

    if importlib.util.find_spec("vllm") is None or not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU and vLLM")
    script = Path(__file__).parents[3] / "scripts" / "check_runtime.py"
    checked = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr[-4000:]
    assert "reached the kernel" in checked.stdout
