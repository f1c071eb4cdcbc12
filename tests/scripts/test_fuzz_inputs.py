import pytest

import fuzz_inputs
from fuzz_inputs import Tally, _outcome, fuzzed
from mla_tune.errors import InputError


def report(index, outcome="read", seconds=0.1, peak_mib=100.0):
    return {"index": index, "outcome": outcome, "problem": "ValueError: x", "seconds": seconds,
            "peak_mib": peak_mib}  # fmt: skip


def tally(*reports):
    made = Tally()
    for each in reports:
        made.add(each)
    return made


def test_good_is_what_is_read_or_refused_in_time_and_memory():
    assert tally(report(0), report(1, "refused")).is_good
    assert not tally(report(0), report(1, "failed")).is_good
    assert not tally(report(0, seconds=5.1)).is_good
    assert not tally(report(0, peak_mib=501.0)).is_good


def raises(error):
    def read(_kind, _data, _folder):
        raise error

    return read


def hangs(_kind, _data, _folder):
    while True:
        pass


@pytest.mark.parametrize(
    ("read", "outcome", "says"),
    [
        (lambda *_: None, "read", ""),
        (lambda *_: InputError("no"), "refused", ""),
        (raises(ValueError("x")), "failed", "ValueError: x"),
        (raises(SystemExit(7)), "failed", "SystemExit: 7"),
        (hangs, "failed", "TimeoutError: took more than"),
    ],
)
def test_an_outcome_is_named(monkeypatch, tmp_path, read, outcome, says):
    monkeypatch.setattr(fuzz_inputs, "LONGEST_S", 0.05)
    previous = fuzz_inputs.signal.signal(fuzz_inputs.signal.SIGALRM, fuzz_inputs._hang)
    try:
        found = _outcome(read, None, b"", tmp_path)
    finally:
        fuzz_inputs.signal.signal(fuzz_inputs.signal.SIGALRM, previous)
    assert found["outcome"] == outcome
    assert found["problem"].startswith(says)


def test_an_input_that_ends_its_process_is_named_and_the_next_are_read(monkeypatch, tmp_path):
    stub = tmp_path / "stub.py"
    stub.write_text(
        "import json, os, sys\n"
        f"made = {report(0)!r}\n"
        "print(json.dumps({**made, 'index': int(sys.argv[3])}), flush=True)\n"
        "os.abort()\n"
    )
    monkeypatch.setattr(fuzz_inputs, "__file__", str(stub))
    found = fuzzed("any", 3, seed=0)
    assert (found.inputs, found.read, found.tracebacks) == (3, 2, 1)
    assert found.failures[0].startswith("1: ended its process or hung (exit code -6)")


def test_mutants_are_read_in_a_process_of_their_own():
    found = fuzzed("grammar", 20, seed=0)
    assert (found.inputs, found.read + found.refused) == (20, 20)
    assert found.peak_mib > 10


@pytest.mark.parametrize(("outcome", "code"), [("refused", 0), ("failed", 1)])
def test_a_line_a_kind_is_printed_and_the_exit_code_says_whether_all_is_good(
    monkeypatch, tmp_path, capsys, outcome, code
):
    monkeypatch.setattr(fuzz_inputs, "KEPT", tmp_path)
    monkeypatch.setattr(fuzz_inputs, "fuzzed", lambda *_: tally(report(0), report(1, outcome)))
    assert fuzz_inputs.main(["--count", "2", "grammar"]) == code
    shown = capsys.readouterr().out.splitlines()
    assert shown[1].split()[:3] == ["grammar", "2", "1"]
    assert [path.name for path in tmp_path.iterdir()] == (["grammar-0-1"] if code else [])


def test_an_unknown_kind_is_refused(capsys):
    with pytest.raises(SystemExit):
        fuzz_inputs.main(["letters"])
    assert (
        "no kind letters; there are shapes, model configurations, grammar"
        in capsys.readouterr().err
    )
