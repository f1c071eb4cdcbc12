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
SCRIPT = Path(__file__).parents[3] / "scripts" / "bench_step.py"


def test_every_kind_of_step_is_timed_with_and_without_the_plugin():
    """In a process of its own: it puts the plugin into vLLM's registry for good."""
    done = subprocess.run(
        [sys.executable, SCRIPT, "TRITON_MLA", "--rounds", "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for kind in (
        "graph replay, tuned",
        "graph replay, vLLM's own",
        "eager decode",
        "mixed",
        "eager lookup",
    ):
        assert f"TRITON_MLA {kind}" in done.stdout
    assert done.stdout.count("added") == 10
