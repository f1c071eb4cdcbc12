"""What the README has a newcomer type after the quickstart, on what a real run has left behind."""

from pathlib import Path

import pytest

import dev
from printed_commands import Printed, printed_commands, refusal

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ran(monkeypatch):
    """What the quickstart runs, without running it."""
    commands = []
    monkeypatch.setattr(dev, "install", lambda extras: commands.append(("install", extras)))
    monkeypatch.setattr(dev, "run", lambda *command: commands.append(command))
    dev.quickstart()
    return commands


def test_the_quickstart_installs_what_the_readme_goes_on_with(ran):
    assert ran[0] == ("install", "[report]")
    command, *arguments = ran[1]
    assert command == ROOT / ".venv" / "bin" / "mla-tune"
    assert refusal(Printed("mla-tune", tuple(arguments), is_mention=False)) is None
    assert arguments[-6:-2] == ["--out", "build/tables", "--study-dir", "build/studies"]


def test_from_a_table_to_its_page_and_its_explanation(cli, tuned, tmp_path, monkeypatch):
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "tables").symlink_to(tuned[0] / "out")
    (tmp_path / "build" / "studies").symlink_to(tuned[0] / "study")
    monkeypatch.chdir(tmp_path)
    readme = printed_commands((ROOT / "README.md").read_text(encoding="utf-8"))
    typed = [each.arguments for each in readme if any("build/" in word for word in each.arguments)]
    assert [arguments[0] for arguments in typed] == ["show", "report", "lookup"]
    shown = {arguments[0]: cli(*_expanded(arguments)) for arguments in typed}
    assert "2q1s300" in shown["show"][1]
    assert shown["report"][1].startswith("build/report.html: 1 table, ")
    # That run had other shapes than the quickstart.
    assert shown["lookup"][1].startswith("miss")
    assert [code for code, _, _ in shown.values()] == [0, 0, 1]


def _expanded(arguments):
    """As a shell does it."""
    return [
        path
        for word in arguments
        for path in (sorted(Path.cwd().glob(word)) if "*" in word else [word])
    ]
