"""What ships: the listed tables and the package, whatever else lies in a clone."""

import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

from mla_tune.table import TableFile

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LISTED = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]


def test_the_tables_that_ship_are_those_that_git_tracks():
    done = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "tuned_configs"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("no git, or no clone")
    tracked = done.stdout.split()
    assert list(LISTED.items()) == [(name, f"mla_tune/{name}") for name in tracked]


@pytest.mark.parametrize("name", LISTED)
def test_a_table_that_ships_was_measured_on_a_gpu(name):
    assert TableFile.load(ROOT / name).header.device.compute_capability is not None


def test_a_trial_run_in_a_clone_does_not_reach_the_wheel(tmp_path):
    wheel_builder = pytest.importorskip("hatchling.builders.wheel")
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    for folder in ("src", "tuned_configs"):
        shutil.copytree(ROOT / folder, clone / folder)
    shutil.copy(ROOT / next(iter(LISTED)), clone / "tuned_configs" / "TORCH_MLA-a_trial.yaml")
    (path,) = wheel_builder.WheelBuilder(str(clone)).build(directory=str(tmp_path))
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
    tables = {name for name in names if name.endswith(".yaml")}
    assert tables == set(LISTED.values())
    assert {"mla_tune/vllm/plugin/__init__.py", "mla_tune/py.typed"} <= set(names)
