import io
import os
import sys
from pathlib import Path

import pytest

from mla_tune.cli.commands import main
from mla_tune.cli.standard_streams import standard_streams

TABLE = (Path(__file__).parents[1] / "data" / "seeds" / "graph.yaml").read_text()


@pytest.fixture
def show(monkeypatch, write):
    """Run ``mla-tune show`` on given streams; returns its exit code."""
    table = write(TABLE + '    note: "device é named 東"\n', "table.yaml")

    def call(output, errors):
        monkeypatch.setattr(sys, "argv", ["mla-tune", "show", str(table)])
        monkeypatch.setattr(sys, "stdout", output)
        monkeypatch.setattr(sys, "stderr", errors)
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0

    return call


def stream(encoding):
    return io.TextIOWrapper(io.BytesIO(), encoding)


@pytest.mark.parametrize(
    ("encoding", "says"),
    [
        ("ascii", ["1.98x (1.97-1.99)", " us ", "device \\xe9 named \\u6771"]),
        ("latin-1", ["1.98× (1.97-1.99)", " µs ", "device é named \\u6771"]),
        ("utf-8", ["1.98× (1.97–1.99)", " µs ", "device é named 東"]),
    ],
)
def test_what_an_encoding_lacks_is_shown_otherwise(show, encoding, says):
    output = stream(encoding)
    assert show(output, stream(encoding)) == 0
    output.flush()
    shown = output.buffer.getvalue().decode(encoding)
    for part in says:
        assert part in shown


def test_a_full_disk_under_standard_output_is_said_in_one_line(show):
    errors = stream("utf-8")
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123
        assert show(full, errors) == 3
    errors.flush()
    assert errors.buffer.getvalue().decode() == (
        "mla-tune: standard output cannot be written: No space left on device\n"
    )


def test_full_standard_errors_change_nothing(show):
    output = stream("utf-8")
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123
        assert show(output, full) == 0


def test_closed_streams_are_no_error(show):
    assert show(None, None) == 0


def test_a_reader_that_went_away_ends_the_command(show):
    reader, writer = os.pipe()
    os.close(reader)
    errors = stream("utf-8")
    with open(writer, "w", encoding="utf-8") as pipe:  # noqa: PTH123
        assert show(pipe, errors) == 1
    errors.flush()
    assert errors.buffer.getvalue() == b""


def test_the_streams_are_put_back(monkeypatch):
    output, errors = stream("ascii"), stream("ascii")
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stderr", errors)
    with standard_streams():
        print("×")
    assert (sys.stdout, sys.stderr) == (output, errors)
