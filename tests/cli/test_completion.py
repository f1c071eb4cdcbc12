"""What a shell is offered, asked as its completion script asks."""

import pytest
from click.shell_completion import ShellComplete

from mla_tune.cli.commands import command
from mla_tune.registry import BACKENDS


def offered(*words):
    *before, incomplete = words
    completing = ShellComplete(command, {}, "mla-tune", "_MLA_TUNE_COMPLETE")
    return completing.get_completions(before, incomplete)


def names(*words):
    return [item.value for item in offered(*words)]


@pytest.mark.parametrize("before", [[], ["serve"], ["prepare"]])
def test_backends_are_completed(before):
    assert names(*before, "--backend", "") == list(BACKENDS.names)
    assert names(*before, "--backend", "flashm") == ["FLASHMLA", "FLASHMLA_SPARSE"]


@pytest.mark.parametrize("before", [["compare"], ["show"], ["lookup"], ["shapes", "from-trace"]])
def test_models_are_completed(before):
    assert names(*before, "--model", "deepseek-v3") == [
        "deepseek-v3",
        "deepseek-v3.1",
        "deepseek-v3.2",
    ]


@pytest.mark.parametrize("before", ["compare", "show", "lookup", "tables"])
def test_tables_are_files_folders_or_the_shipped_ones(before):
    assert [(item.value, item.type) for item in offered(before, "bu")] == [
        ("bundled", "plain"),
        ("bu", "file"),
    ]
    assert [item.type for item in offered(before, "tuned_configs/")] == ["file"]


def test_commands_and_options_are_completed():
    assert {"compare", "check", "cache"} <= set(names("c"))
    assert "--json" in names("tables", "--j")
    assert names("show", "--mode", "") == ["graph", "eager"]


def test_a_shell_gets_the_script_and_then_its_answers(cli, monkeypatch):
    monkeypatch.setenv("_MLA_TUNE_COMPLETE", "zsh_source")
    assert "compdef _mla_tune_completion mla-tune" in cli()[1]
    monkeypatch.setenv("_MLA_TUNE_COMPLETE", "zsh_complete")
    monkeypatch.setenv("COMP_WORDS", "mla-tune show bun")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert cli()[1].splitlines() == ["plain", "bundled", "_", "file", "bun", "_"]
