"""What lies in examples/: shapes files that plan, a script that runs, a deployment that checks."""

import os
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fake_device import ENVIRONMENT, GIB
from mla_tune.shapes.file import load_shapes
from mla_tune.shapes.presets import PRESETS, SPARSE_PRESETS, preset_name
from mla_tune.tuning.planner import Planner
from mla_tune.vllm import compat
from mla_tune.vllm.backend import VllmBackend

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
MODELS = sorted((EXAMPLES / "models").glob("*.yaml"))
H100 = replace(
    ENVIRONMENT,
    device_name="NVIDIA H100 80GB HBM3",
    compute_capability="9.0",
    sm_count=132,
    software={"vllm": "0.33.0", "cuda": "13.0"},
)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_the_shapes_of_a_model_are_planned_for_an_h100(path, tmp_path, monkeypatch):
    # Whether or not vLLM is installed here.
    runs = VllmBackend._hardware_problem
    monkeypatch.setattr(VllmBackend, "unavailable", runs)
    monkeypatch.setattr(compat, "release", lambda: (0, 33, 0))
    shapes = load_shapes(path)
    skipped = []
    planner = Planner(H100, "cuda", 70 * GIB, shapes, tmp_path, skipped.append)
    jobs = planner.jobs([])
    assert shapes.whole_model == PRESETS[path.stem]
    sparse = path.stem in SPARSE_PRESETS
    assert {job.setup.backend.endswith("SPARSE") for job in jobs} == {sparse}
    assert all(len(job.workloads) == 35 for job in jobs)
    assert (
        {"FLASH_ATTN_MLA_SPARSE"} if sparse else {"TRITON_MLA"} <= {j.setup.backend for j in jobs}
    )


def test_each_known_model_has_a_file_or_one_of_another_release_of_it():
    files = {path.stem for path in MODELS}
    others = {  # by the release that has one
        **dict.fromkeys(["deepseek-v2.5"], "deepseek-v2"),
        **dict.fromkeys(["deepseek-v3.1"], "deepseek-v3"),
        **dict.fromkeys(["kimi-k2.5", "kimi-k2.6"], "kimi-k2"),
        **dict.fromkeys(["glm-5.1", "glm-5.2"], "glm-5"),
    }
    assert files == {others.get(name, name) for name in PRESETS}
    assert all(PRESETS[name] == PRESETS[other] for name, other in others.items())
    assert all(preset_name(name) == name for name in files)


def test_every_other_shapes_file_is_one():
    for path in EXAMPLES.glob("*.yaml"):
        load_shapes(path)


def test_the_script_tunes_asks_and_writes_a_report(tmp_path, monkeypatch, capfd, preloaded_workers):
    del preloaded_workers
    monkeypatch.setattr(sys, "argv", ["from_python.py", str(tmp_path)])
    runpy.run_path(str(EXAMPLES / "from_python.py"), run_name="__main__")
    shown = capfd.readouterr().out
    assert "<Lookup 2q4s256: " in shown
    assert "<Lookup 3q1s256: miss>" in shown
    assert "not tuned" not in shown
    assert (tmp_path / "report.html").stat().st_size > 10_000


DEPLOYMENT = EXAMPLES / "deployment"
WORKFLOW = yaml.safe_load((DEPLOYMENT / ".github" / "workflows" / "tables.yml").read_text())
COMMANDS = {
    step["name"]: step["run"]
    for step in WORKFLOW["jobs"]["tables"]["steps"]
    if "mla-tune" in step.get("run", "") and "pip" not in step["run"]
}


def in_workflow(step, folder):
    """Run a step of the deployment's workflow, as a runner does."""
    command = f'mla-tune() {{ {sys.executable} -m mla_tune "$@"; }}\n{COMMANDS[step]}'
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, "GITHUB_STEP_SUMMARY": str(folder / "summary.md")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_pull_request_of_the_deployment_is_checked_and_told(tmp_path):
    assert set(COMMANDS) == {"Check", "Differences"}
    repository = tmp_path / "repository"
    shutil.copytree(DEPLOYMENT, repository)
    shutil.copytree(DEPLOYMENT, repository / "base")
    checked = in_workflow("Check", repository)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    (table,) = (repository / "tables").glob("TRITON_MLA*")
    text = table.read_text()
    assert "    plan: {num_kv_splits: 8}\n" in text
    table.write_text(text.replace("    plan: {num_kv_splits: 8}\n", "    plan: default\n", 1))
    assert in_workflow("Differences", repository).returncode == 0
    assert "num_kv_splits=8" in (repository / "summary.md").read_text()
    table.write_text(text.replace("num_kv_splits: 8}", "num_kv_splits: -8}", 1))
    refused = in_workflow("Check", repository)
    assert refused.returncode == 1
    assert "num_kv_splits" in refused.stdout
    assert in_workflow("Differences", repository).returncode == 1
