"""The main job, end to end: one real run, and what it leaves behind."""

import subprocess

import yaml
from command_line import MODEL, options, table_of, trials

from mla_tune.table import Table
from mla_tune.table.header import WITHOUT_BETWEEN


def test_the_table_answers_for_every_shape_it_was_made_for(tuned):
    folder, _, _ = tuned
    table = Table.load(table_of(folder))
    assert [entry.shape for entry in table.entries] == ["q1s64", "2q1s300", "q8s70_2q1s130"]
    found = table.lookup(batch=2, kv_len=300)
    assert found.is_exact
    assert found.entry.latency_us > 0
    assert not table.lookup(batch=64, kv_len=300).is_hit


def test_the_table_says_what_it_is_true_for(tuned):
    folder, _, _ = tuned
    data = yaml.safe_load(table_of(folder).read_text())
    assert data["schema_version"] == WITHOUT_BETWEEN
    assert data["backend"] == "TORCH_MLA"
    assert data["model"]["num_q_heads"] == 2
    assert set(data["software"]) >= {"torch"}


def test_every_published_plan_passed_the_gate(tuned):
    folder, _, _ = tuned
    for entry in Table.load(table_of(folder)).entries:
        assert not entry.plan or entry.speedup.low > 1.01


def test_the_run_shows_each_shape_and_ends_with_a_summary(tuned):
    folder, _, shown = tuned
    for shape in ("q1s64", "2q1s300", "q8s70_2q1s130"):
        assert shape in shown
    assert f"written to {table_of(folder)}" in shown


def test_a_second_run_is_a_resume_that_measures_nothing(tuned):
    folder, command, _ = tuned
    trials_before, table_before = trials(folder), table_of(folder).read_bytes()
    assert trials_before
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert trials(folder) == trials_before
    assert table_of(folder).read_bytes() == table_before


def test_a_changed_file_measures_only_what_is_new(tuned, tmp_path):
    del tmp_path
    folder, command, _ = tuned
    before = trials(folder)
    more = folder / "more.yaml"
    more.write_text(MODEL + "batch_specs: [2q1s300, 2q1s200]\n")
    done = subprocess.run([*command[:-1], str(more)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = trials(folder)
    assert after[: len(before)] == before
    assert len({study for study, _ in after}) == 4
    assert len(Table.load(table_of(folder)).entries) == 4


def test_max_tokens_cuts_a_file_down(cli, write, tmp_path):
    shapes = write(MODEL + "batch_specs: [q1s64, 400000q1s128k]\nrepeats: 3\n")
    code, out, err = cli(*options(tmp_path), "--shapes", shapes, "--max-tokens", "1k")
    assert code == 0, err
    assert "1 larger shape left out" in out
    assert "repeats: skipped" in out
