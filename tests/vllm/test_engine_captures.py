import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deepseek_folder import deepseek_folder
from mla_tune.environment import Environment
from mla_tune.shapes.file import ShapesFile, load_shapes
from mla_tune.tuning.graph_cases import graph_cases
from mla_tune.vllm import compat

pytestmark = pytest.mark.vllm

DRAFTS = '{"method": "mtp", "num_speculative_tokens": 3}'
COMMANDS = {
    "one GPU": [],
    "TP 8": ["--tensor-parallel-size", "8"],
    "draft tokens": ["-tp", "8", "--speculative-config", DRAFTS],
    "eager": ["-tp", "8", "--enforce-eager"],
    "96 sequences": ["-tp", "8", "--max-num-seqs", "96"],
    "fp8": ["-tp", "8", "--kv-cache-dtype", "fp8", "--attention-backend", "TRITON_MLA"],
    "DCP 2": ["-tp", "8", "--decode-context-parallel-size", "2"],
    "own sizes": ["-tp", "8", "--max-num-seqs", "20", "--cudagraph-capture-sizes", "1", "7", "20"],
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("engine")
    serve = [str(deepseek_folder(folder / "model")), "--load-format", "dummy"]
    program = Path(__file__).with_name("engine_captures.py")
    asked = json.dumps([[*serve, *arguments] for arguments in COMMANDS.values()])
    done = subprocess.run(
        [sys.executable, str(program), asked], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(zip(COMMANDS, map(json.loads, lines), strict=True))


@pytest.fixture
def read(answers: dict[str, dict[str, Any]], tmp_path: Path) -> Any:
    def shapes_of(name: str) -> ShapesFile:
        path = tmp_path / "shapes.yaml"
        path.write_text(answers[name]["shapes"])
        return load_shapes(path)

    return shapes_of


HOPPER = Environment("NVIDIA H100", "9.0", 132, 80.0, {"vllm": compat.installed() or "none"}, {})


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "eager"])
def test_shapes_are_what_vllm_captures(name: str, answers: Any, read: Any) -> None:
    shapes = read(name)
    assert shapes.modes == ("graph",)
    requests = {case.shape.num_requests for case in graph_cases(shapes, HOPPER)}
    captured = answers[name]["captured"]
    assert sorted(requests) == captured
    assert len(captured) > 2


def test_heads_are_those_of_one_gpu(read: Any) -> None:
    heads = {name: read(name).whole_model.num_q_heads for name in ("one GPU", "TP 8", "DCP 2")}
    assert heads == {"one GPU": 128, "TP 8": 16, "DCP 2": 32}
    assert read("DCP 2").max_model_len == 65536


def test_draft_tokens_make_longer_queries(read: Any) -> None:
    cases = graph_cases(read("draft tokens"), HOPPER)
    assert {case.shape.max_query_len for case in cases} == {4}


def test_an_eager_engine_has_eager_shapes(read: Any, answers: Any) -> None:
    shapes = read("eager")
    assert answers["eager"]["captured"] == []
    assert shapes.modes == ("eager",)
    requests = {case.shape.num_requests for case in shapes.cases}
    assert (min(requests), max(requests)) == (1, 1024)


def test_the_backend_and_cache_asked_for(read: Any) -> None:
    assert read("fp8").kv_cache_dtypes == ("fp8",)
    assert read("fp8").backends == ("TRITON_MLA",)
    assert read("TP 8").kv_cache_dtypes == ("auto",)
    assert read("TP 8").backends == ()


def test_each_backend_that_vllm_takes_has_an_engine(answers: Any) -> None:
    found = answers["one GPU"]
    assert found["others"] == [["TRITON_MLA", found["capture_sizes"]]]


def test_whose_choice_the_backend_is(answers: Any) -> None:
    reasons = {name: answer["no_choice"] for name, answer in answers.items()}
    assert reasons.pop("fp8") == "the command chooses TRITON_MLA"
    assert set(reasons.values()) == {None}
