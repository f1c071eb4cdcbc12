import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.vllm

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    env = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}
    script = str(HERE / "compile_contract.py")
    ran = subprocess.run(
        [sys.executable, script], env=env, capture_output=True, text=True, check=False, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def test_launches_are_taken_down_by_what_they_are_compiled_alike_for(found):
    assert found["calls"] == 5
    assert found["strides"] == [1, 16, 3]


def test_each_is_compiled_once_and_found_afterwards(found):
    assert found["second"] == ["compiled"] * 3
    assert found["third"] == ["found"] * 3


def test_a_real_launch_finds_what_was_compiled_ahead(found):
    assert found["hits"] == [True] * 3


def test_what_hangs_or_ends_the_compiler_is_said_and_the_rest_goes_on(found):
    assert found["hung"] == ["hung", "the compiler took more than 2 s"]
    assert found["died"] == ["ended", "the compiler ended (SIGSEGV)"]
    assert found["ticks"] > 2


def test_what_the_compiler_refuses_is_left_to_who_measures(found):
    outcome, text = found["wrong"]
    assert outcome == "refused"
    assert "power of 2" in text


def test_a_process_that_has_ended_compiles_nothing(found):
    assert found["after its end"] == 0
