"""What commands print for programs: JSON alone, of the shape in docs/json.md."""

import json

import pytest
from json_document import EXAMPLES, documented

from fake_device import ENVIRONMENT
from mla_tune.cli.commands import command
from mla_tune.cli.json_output import plain_plan
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.table import Publication
from mla_tune.tuning.recheck import Recheck
from modelled_table import ENTRIES, HEADER, MODEL


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "t.yaml"
    Publication(path, HEADER).write(ENTRIES, MODEL)
    return path


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["show", "TABLE"], 0),
        (["show", "bundled"], 0),
        (["tables", "TABLE", "--gpu", "NVIDIA H200", "--vllm", "0.33.0"], 0),
        (["tables", "bundled"], 0),
        (["lookup", "TABLE", "--batch", "32", "--kv-len", "4k"], 0),
        (["lookup", "TABLE", "--batch", "1", "--kv-len", "4k"], 0),
        (["lookup", "TABLE", "--batch", "9999", "--kv-len", "4k"], 1),
        (["lookup", "bundled", "--batch", "32", "--kv-len", "6k"], 0),
        (["compare", "TABLE"], 0),
        (["compare", "bundled"], 0),
        (["diff", "TABLE", "TABLE"], 0),
        (["check", "FOLDER"], 1),
        (["vllm-args", "TABLE"], 0),
        (["cache list", "--cache", "FOLDER"], 0),
        (["cache clean", "--cache", "FOLDER"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_prints_what_is_documented(cli, table, tmp_path, words, code):
    places = {"TABLE": table, "FOLDER": tmp_path}
    asked = [places.get(word, word) for word in words]
    found, out, _ = cli(*str(asked[0]).split(), *asked[1:], "--json")
    assert found == code
    assert documented(words[0], out)


def test_backends_are_listed_with_why_they_do_not_run(cli, monkeypatch):
    monkeypatch.setattr("mla_tune.tuning.device_bench.found_environment", lambda _: ENVIRONMENT)
    _, out, _ = cli("backends", "--json")
    reasons = {each["name"]: each["why_not"] for each in documented("backends", out)["backends"]}
    assert reasons["TORCH_MLA"] is None
    assert "vLLM" in reasons["FLASHMLA"]


def test_backends_are_listed_below_what_the_machine_has(cli, monkeypatch):
    monkeypatch.setattr("mla_tune.tuning.device_bench.found_environment", lambda _: ENVIRONMENT)
    _, out, _ = cli("backends")
    first = out.splitlines()[0]
    assert first.startswith(f"{ENVIRONMENT.device_name}: ")
    assert all(f"{name} {v}" in first for name, v in ENVIRONMENT.software.items())
    assert "'" not in first


def test_a_recheck_is_printed_at_its_end(cli, table, monkeypatch):
    results = [
        Recheck(ENTRIES[0], None, "it hangs", ("few samples",)),
        Recheck(ENTRIES[2], ENTRIES[2].speedup, ""),
    ]

    def rechecked(tables, *_asked, **_named):
        return [(tables[0], result) for result in results]

    monkeypatch.setattr("mla_tune.tuning.run.rechecked", rechecked)
    code, out, _ = cli("recheck", table, "--json")
    found = documented("recheck", out)["entries"]
    assert code == 1
    assert [each["problem"] for each in found] == ["it hangs", None]


@pytest.mark.usefixtures("table")
def test_what_is_wrong_with_a_folder_is_told_beside_the_json(cli, tmp_path):
    (tmp_path / "bad.yaml").write_text("schema_version: 1\n")
    code, out, err = cli("show", tmp_path, "--json")
    (problem,) = documented("show", out)["problems"]
    assert code == 0
    assert "bad.yaml" in problem
    assert problem in err


def test_every_documented_command_has_the_option():
    for name in EXAMPLES:
        found = command
        for word in name.partition(" --")[0].split():
            found = found.commands[word]
        assert any(parameter.name == "as_json" for parameter in found.params), name


def test_a_plan_is_a_mapping_or_a_word():
    assert plain_plan(Plan(num_kv_splits=2)) == {"num_kv_splits": 2}
    assert plain_plan(UNTUNED) == plain_plan(None) == "default"
    assert json.dumps(plain_plan(Plan(prefill_backend="fa3"))) == '{"prefill_backend": "fa3"}'
