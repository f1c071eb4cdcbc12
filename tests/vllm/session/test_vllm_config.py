"""The configuration of a session, made by the real vLLM."""

import importlib.util
import os
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM"),
]

SCRIPT = """
from mla_tune.session import Setup
from mla_tune.shapes import MlaDimensions
from mla_tune.vllm.session.config import make_config, use_cpu_platform

use_cpu_platform()
from vllm.model_executor.models import registry

def refuse(look):
    raise AssertionError("another process is started")

registry._run_in_subprocess = refuse
made = make_config(Setup("TRITON_MLA", MlaDimensions(16)), 16, "float16", sparse=False)
assert made.model_config.is_deepseek_mla
assert registry._run_in_subprocess is refuse
"""


def test_on_a_first_start_no_process_is_started_to_look_at_the_model(tmp_path):
    environ = os.environ | {"VLLM_CACHE_ROOT": str(tmp_path)}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "modelinfos").glob("*DeepseekV2ForCausalLM.json"))
