import re
import subprocess
import sys
from pathlib import Path


def test_help_loads_nothing_heavy():
    program = """
import sys
from mla_tune.cli.commands import main
sys.argv = ["mla-tune", "--help"]
try:
    main()
except SystemExit:
    pass
heavy = ("torch", "optuna", "vllm", "pydantic", "numpy", "scipy", "rich", "yaml")
print("loaded:", [name for name in heavy if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "--backend" in done.stdout
    assert "loaded: []" in done.stdout


def test_the_installed_command_answers():
    command = Path(sys.executable).with_name("mla-tune")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert re.search(r"mla-tune.*\d+\.\d+", done.stdout)
