import re
import subprocess
import sys
from pathlib import Path

import pytest


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


def test_the_command_alone_shows_help_and_tune_groups_its_options(cli):
    code, out, _ = cli()
    assert code == 0
    assert "Commands:" in out
    code, out, _ = cli("tune", "--help")
    titles = ("What to tune:", "Where to:", "Devices:", "How sure:", "Recording:")
    places = [out.index(title) for title in titles]
    assert places == sorted(places)
    assert out.index("--shapes") < places[1] < out.index("--out")


@pytest.mark.parametrize("before", [(), ("tune",)])
def test_tune_is_the_same_with_and_without_its_name(cli, tmp_path, before):
    code, _, err = cli(*before, "--backend", "TORCH_MLA", "--shapes", tmp_path / "absent.yaml")
    assert code == 2
    assert "absent.yaml" in err


def test_options_of_tune_before_its_name_are_refused(cli):
    code, _, err = cli("--backend", "TORCH_MLA", "tune")
    assert code == 2
    assert "mla-tune tune --backend" in err
