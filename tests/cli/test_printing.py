import io

import pytest
from rich.console import Console

from mla_tune.cli.printing import folded, say

LINE = "tuned q1s1k: reorder_batch_threshold=4 num_kv_splits=16 prefill_backend=flashinfer"


@pytest.mark.parametrize("width", [20, 40, 80])
def test_lines_are_folded_between_words(width):
    lines = folded(LINE, width).split("\n")
    assert " ".join(line.strip() for line in lines) == LINE
    assert all(len(line) <= width or " " not in line.strip() for line in lines)


def test_where_nobody_looks_nothing_is_folded():
    assert folded(LINE, None) == LINE


def printed(**terminal):
    console = Console(file=io.StringIO(), width=40, **terminal)
    say(console, LINE, style="bold red")
    return console.file.getvalue()


def test_a_terminal_gets_colours_and_folds_and_a_pipe_neither(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in printed(force_terminal=True)
    assert printed(force_terminal=True).count("\n") > 1
    assert printed() == f"{LINE}\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31m" not in printed(force_terminal=True)
