import subprocess
import sys
from pathlib import Path

import pytest

from mla_tune.runtime import register

COSTLY = ("pydantic", "yaml", "torch", "optuna", "vllm", "logging", "numpy", "click")

ROOMS = {
    *("runtime", "table", "shapes", "knobs", "environment", "errors", "document"),
    *("versions", "domains", "quantization", "own_file", "regular_file", "yaml_events"),
    *("printable", "backends"),
}


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(chr(10).join(sys.modules))"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={}
    )
    return set(shown.stdout.split())


def test_without_tables_nothing_costly_is_imported() -> None:
    loaded = modules_after("from mla_tune.runtime import register; register(); register()")
    assert loaded.isdisjoint(COSTLY)
    assert "mla_tune.runtime.registration" not in loaded


def test_the_runtime_imports_nothing_of_the_tuner() -> None:
    """Only what `ROOMS` names, and no Optuna."""
    modules = ["deployment", "recorder", "single", "splits", "tables", "vllm_args", "from_record"]
    statement = "import " + ", ".join(f"mla_tune.runtime.{name}" for name in modules)
    loaded = modules_after(statement)
    assert "optuna" not in loaded
    assert "torch" not in loaded
    rooms = {name.split(".")[1] for name in loaded if name.startswith("mla_tune.")}
    assert rooms <= ROOMS


def test_no_failure_reaches_vllm(
    monkeypatch: pytest.MonkeyPatch, messages: list[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("MLA_TUNE_TABLES", str(tmp_path))
    monkeypatch.setitem(sys.modules, "mla_tune.runtime.registration", None)
    register()
    assert messages == [
        "ERROR mla-tune: no tuned values are applied, the plugin could not be set up"
    ]
