import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mla_tune.__main__ import PACKAGES, main
from mla_tune.errors import INTERRUPTED

PYPROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def without(packages, *arguments):
    """Run the command where packages are not installed; returns its exit code and its errors."""
    # In a process of its own: modules that are imported twice in this one are two to its tests.
    hidden = "".join(f"sys.modules[{package!r}] = None; " for package in packages)
    code = f"import sys; {hidden}from mla_tune.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("click", ["--help"]),
        ("rich", ["history", "table.yaml"]),
        ("optuna", ["--backend", "TORCH_MLA", "--shapes", "shapes.yaml"]),
        ("yaml", ["shapes", "from-record", "served.json"]),
    ],
)
def test_a_package_that_is_not_installed_is_named_in_a_line(package, arguments):
    code, errors = without([package], *arguments)
    assert code == 3
    assert f"this command needs the package {PACKAGES[package]}, which is not" in errors
    assert f"to do: pip install {PACKAGES[package]}\n" in errors


def test_what_tuning_needs_beyond_that_is_named_too():
    _, errors = without(["click", "optuna", "pynvml"], "--help")
    assert "pip install click (tuning also needs optuna nvidia-ml-py)" in errors


def test_a_module_of_our_own_that_is_missing_is_a_fault_to_report():
    code, errors = without(["mla_tune.catalogue.found"], "show", "table.yaml")
    assert code == 1
    assert "ModuleNotFoundError" in errors


def test_an_interrupt_while_the_command_is_imported_is_no_traceback(monkeypatch):
    class Interrupts:
        def find_spec(self, name, *_):
            if name == "mla_tune.cli.commands":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "mla_tune.cli.commands", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupts(), *sys.meta_path])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == INTERRUPTED


def test_every_dependency_is_known_by_its_module():
    names = {re.split(r"[><=~ ]", text)[0] for text in PYPROJECT["dependencies"]}
    assert set(PACKAGES.values()) == names


def test_the_installed_command_is_this_one():
    assert PYPROJECT["scripts"]["mla-tune"] == "mla_tune.__main__:main"
