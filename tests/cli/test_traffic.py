import pytest
from command_line import refused

from mla_tune.serving import engine_process
from served_engines import ENGINE


def test_the_shapes_of_an_engine(cli, monkeypatch):
    monkeypatch.setattr(engine_process, "ask_vllm", lambda _command, _patience_s: [ENGINE])
    code, out, _ = cli("shapes", "from-engine", "--", "vllm", "serve", "model", "--help-me")
    assert code == 0
    assert "# What vLLM 0.33.0 would serve with: vllm serve model --help-me" in out
    assert "capture_sizes: [1, 2, 4, 8, 16]" in out


@pytest.mark.parametrize("command", [["vllm", "bench"], ["python3", "server.py"]])
def test_another_command_than_vllm_serve_is_refused(cli, command):
    assert "valid: vllm serve MODEL" in refused(cli, "shapes", "from-engine", "--", *command)
