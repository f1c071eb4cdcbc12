from pathlib import Path

import pytest

from mla_tune.cli.headline import headline
from mla_tune.plan.plan import Plan
from tabled_engine import entry


@pytest.fixture
def read_by(monkeypatch, tmp_path):
    """The line that says how to read the tables, by how the command was started."""
    monkeypatch.chdir(tmp_path)

    def line(started, on_path=None):
        monkeypatch.setattr("sys.argv", [str(started)])
        monkeypatch.setattr("shutil.which", lambda _: on_path)
        entries = [entry("8q1s1k", Plan(num_kv_splits=8))]
        paths = [Path("t.yaml")]
        return headline(entries, paths, servable=paths, num_failed=0, num_from_study=0)[-1]

    return line


def test_the_next_command_can_be_typed_as_it_stands(read_by, tmp_path):
    venv = tmp_path / ".venv" / "bin" / "mla-tune"
    assert read_by(venv) == "to read them: .venv/bin/mla-tune show t.yaml"
    assert read_by(".venv/bin/mla-tune") == "to read them: .venv/bin/mla-tune show t.yaml"
    assert read_by("/opt/a b/mla-tune") == "to read them: '/opt/a b/mla-tune' show t.yaml"
    assert read_by(venv, on_path="/usr/bin/mla-tune") == "to read them: mla-tune show t.yaml"
    assert read_by("/usr/lib/mla_tune/__main__.py") == "to read them: mla-tune show t.yaml"
