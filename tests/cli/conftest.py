import subprocess
import sys

import pytest
from command_line import MAIN, SHAPES, options

from mla_tune.cli.commands import main


@pytest.fixture
def cli(monkeypatch, capsys, preloaded_workers):
    """Run the command in this process; returns its exit code, output and errors."""
    del preloaded_workers

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mla-tune", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


@pytest.fixture(scope="session")
def tuned(tmp_path_factory):
    """A folder in which the real command has run on TORCH_MLA, and what it printed."""
    folder = tmp_path_factory.mktemp("tuned")
    shapes = folder / "shapes.yaml"
    shapes.write_text(SHAPES)
    # Long enough for a verdict on a busy machine: without one, a second run confirms again.
    command = [*MAIN, *options(folder, confirm_seconds=10.0), "--shapes", str(shapes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, command, done.stdout
