import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

# Not importorskip: whoever imports vLLM first in this process decides whether Triton interprets.
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM"),
]
SCRIPT = Path(__file__).parents[2] / "scripts" / "soak_plugin.py"


def soak(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: it puts the plugin into vLLM's registry for good."""
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False
    )


def test_memory_stays_flat_over_some_thousand_steps():
    # No bound on the time: a test's neighbours on the machine decide it.
    done = soak("--steps", "3000", "--most-slowdown", "100")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    for backend in ("TRITON_MLA", "FLASH_ATTN_MLA"):
        assert f"{backend}    3000 steps" in done.stdout
        assert f"mla-tune: {backend} after" in done.stdout
    assert "fallbacks 0" in done.stdout
    assert "served.json" in done.stdout


@pytest.mark.parametrize("bound", ["--most-growth-mib", "--most-slowdown"])
def test_what_is_not_flat_fails(bound):
    done = soak("TRITON_MLA", "--steps", "200", bound, "-1000")
    assert done.returncode == 1
