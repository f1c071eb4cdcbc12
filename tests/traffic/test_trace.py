from pathlib import Path

import pytest

from mla_tune.errors import InputError
from mla_tune.traffic.trace import load_trace

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"


def trace(folder: Path, *lines: str, header: str = HEADER) -> Path:
    path = folder / "trace.csv"
    path.write_text(header + "".join(f"{line}\r\n" for line in lines), newline="")
    return path


def test_the_traces_of_2023_are_read(tmp_path: Path) -> None:
    path = trace(
        tmp_path, "2023-11-16 18:15:50.9951690,396,109", "2023-11-16 18:15:46.6805900,374,44", ""
    )
    first, second = load_trace(path)
    assert first == (0.0, 374, 44)
    assert (second.context, second.generated) == (396, 109)
    assert second.arrival_s == pytest.approx(4.314579)


def test_the_traces_of_2024_have_a_zone(tmp_path: Path) -> None:
    path = trace(
        tmp_path, "2024-05-10 00:00:00.009930+00:00,2162,5", "2024-05-10 00:00:01.009930+00:00,9,0"
    )
    assert load_trace(path) == [(0.0, 2162, 5), (1.0, 9, 0)]


def test_columns_are_found_by_their_names(tmp_path: Path) -> None:
    path = trace(
        tmp_path, "7,x,8,2024-05-10", header="GeneratedTokens,More,ContextTokens,TIMESTAMP\n"
    )
    assert load_trace(path) == [(0.0, 8, 7)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("2023-11-16 18:15:50,396", "trace.csv:2: 2 values"),
        ("yesterday,396,1", "trace.csv:2: 'yesterday' is no time"),
        ("2023-11-16,0,1", "trace.csv:2: '0' is no number of tokens"),
        ("2023-11-16,-4,1", "'-4'"),
        ("2023-11-16,4,1.5", "'1.5'"),
        (f"2023-11-16,4,{'9' * 5000}", "no number of tokens"),
        ("2023-11-16,4,٣", "no number of tokens"),
        (f"2023-11-16,{'x' * 200_000},3", "field larger than field limit"),
    ],
)
def test_a_value_that_is_none_is_named_with_its_line(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_trace(trace(tmp_path, line))


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "TIMESTAMP,ContextTokens\n"])
def test_another_file_is_refused_and_told_the_columns(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"no column .*GeneratedTokens"):
        load_trace(path)


def test_a_trace_without_requests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no requests"):
        load_trace(trace(tmp_path))
