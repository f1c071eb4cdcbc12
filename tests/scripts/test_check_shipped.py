import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asked_tables import write_tables
from mla_tune.environment import probe
from mla_tune.plan.plan import Plan
from mla_tune.shapes import MlaDimensions

# Not importorskip: whoever imports vLLM first in this process decides whether Triton interprets.
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM"),
]
SCRIPT = Path(__file__).parents[2] / "scripts" / "check_shipped.py"
PLANS = {"q1s1k": Plan(num_kv_splits=4), "2q1s1k": Plan(num_kv_splits=8)}


def test_the_plans_of_a_table_for_this_machine_reach_their_kernels():
    """In a process of its own: it puts the plugin into vLLM's registry for good."""
    asked = {("TRITON_MLA", "graph"): PLANS}
    tables = write_tables(asked, probe("cpu"), MlaDimensions(num_q_heads=16), 4096)
    # A wheel has tables of several releases of one GPU; the plugin takes this one's.
    older = (tables / "TRITON_MLA-graph.yaml").read_text()
    (tables / "older.yaml").write_text(older.replace("vllm: 0.3", "vllm: 0.2"))
    done = subprocess.run(
        [sys.executable, SCRIPT, "--tables", tables, "--device", "cpu"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    for spec, plan in PLANS.items():
        assert f"{spec.replace('1k', '512')} {plan}: reached the kernel" in done.stdout
    assert "2 plans reached their kernels, 0 did not" in done.stdout
    assert "not here: is for vLLM 0.2" in done.stdout
