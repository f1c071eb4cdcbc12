import subprocess
import sys
from pathlib import Path

import pytest

import mla_tune
from mla_tune import runtime
from mla_tune.vllm.plugin import register

COSTLY = ("pydantic", "yaml", "torch", "optuna", "vllm", "logging", "numpy", "click")

SOURCE = Path(mla_tune.__file__).parents[1]

ROOMS = {
    *("vllm", "torch_mla", "traffic", "registry", "table", "plan", "shapes", "files", "session"),
    *("_version", "environment", "errors", "printable", "quantization", "versions"),
}


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(chr(10).join(sys.modules))"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(SOURCE)},
    )
    return set(shown.stdout.split())


def test_without_tables_nothing_costly_is_imported() -> None:
    loaded = modules_after("from mla_tune.vllm.plugin import register; register(); register()")
    assert loaded.isdisjoint(COSTLY)
    assert "mla_tune.vllm.plugin.registration" not in loaded


def test_the_runtime_imports_nothing_of_the_tuner() -> None:
    """Only what `ROOMS` names, and no Optuna."""
    modules = ["plugin.deployment", "plugin.single", "plugin.splits", "flags"]
    names = [*(f"vllm.{name}" for name in modules), "table.loading", "traffic.writer"]
    statement = "import " + ", ".join(f"mla_tune.{name}" for name in names)
    loaded = modules_after(statement)
    assert "optuna" not in loaded
    assert "torch" not in loaded
    rooms = {name.split(".")[1] for name in loaded if name.startswith("mla_tune.")}
    assert rooms <= ROOMS


def test_no_failure_reaches_vllm(
    monkeypatch: pytest.MonkeyPatch, messages: list[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("MLA_TUNE_TABLES", str(tmp_path))
    monkeypatch.setitem(sys.modules, "mla_tune.vllm.plugin.registration", None)
    register()
    assert messages == [
        "ERROR mla-tune: no tuned values are applied, the plugin could not be set up"
    ]


def test_the_entry_point_of_earlier_installations_is_the_same_function() -> None:
    assert runtime.register is register
