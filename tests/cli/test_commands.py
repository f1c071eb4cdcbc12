import json
import os
import pwd
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from mla_tune.cli.commands import main
from mla_tune.device.lock import FOLDER_VARIABLE
from mla_tune.registry import NAMES
from mla_tune.table import SCHEMA_VERSION, Table

MODEL = (
    "model: {name: tiny, num_q_heads: 2, kv_lora_rank: 32, qk_nope_head_dim: 16, "
    "qk_rope_head_dim: 8, v_head_dim: 16}\n"
)
SHAPES = MODEL + "batch_specs: [q1s64, 2q1s300, q8s70_2q1s130]\n"
MAIN = [sys.executable, "-m", "mla_tune"]


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run the command in this process; returns its exit code, output and errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mla-tune", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def options(folder: Path, confirm_seconds: float = 0.3) -> list[str]:
    return [
        *("--backend", "TORCH_MLA", "--device", "cpu"),
        *("--out", str(folder / "out"), "--study-dir", str(folder / "study")),
        *("--confirm-seconds", str(confirm_seconds)),
    ]


def trials(folder: Path) -> list[tuple[int, dict]]:
    """(study, outcome) of every trial in the journal, in order, without asking Optuna."""
    journals = list((folder / "study").glob("*.journal"))
    lines = journals[0].read_bytes().split(b"\n")[:-1] if journals else []
    told = [json.loads(line) for line in lines if b'"outcome"' in line]
    return [(op["study_id"], op["user_attrs"]["outcome"]) for op in told]


# The main job, end to end, once.


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A folder in which the real command has run on TORCH_MLA, and what it printed."""
    folder = tmp_path_factory.mktemp("tuned")
    shapes = folder / "shapes.yaml"
    shapes.write_text(SHAPES)
    command = [*MAIN, *options(folder), "--shapes", str(shapes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, command, done.stdout


def table_of(folder: Path) -> Path:
    (path,) = (folder / "out").glob("*.yaml")
    return path


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
    assert data["schema_version"] == SCHEMA_VERSION
    assert data["backend"] == "TORCH_MLA"
    assert data["model"]["num_q_heads"] == 2
    assert set(data["software"]) >= {"torch"}


def test_every_published_plan_passed_the_gate(tuned):
    folder, _, _ = tuned
    for entry in Table.load(table_of(folder)).entries:
        assert entry.plan is None or entry.speedup.low > 1.01


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


def test_show_prints_the_table(tuned, cli):
    code, out, _ = cli("show", table_of(tuned[0]))
    assert code == 0
    assert "2q1s300" in out
    assert "TORCH_MLA" in out


def test_lookup_says_hit_or_miss_by_its_exit_code(tuned, cli):
    table = table_of(tuned[0])
    code, out, _ = cli("lookup", table, "--batch", 2, "--kv-len", 300, "--query-len", 1)
    assert (code, out.split(":")[0]) == (0, "hit")
    code, out, _ = cli("lookup", table, "--batch", 64, "--kv-len", "4k")
    assert (code, out.split(":")[0]) == (1, "miss")
    code, out, _ = cli("lookup", table, "--shape", "q8s70_2q1s130")
    assert (code, out.split(":")[0]) == (0, "hit")


def test_recheck_measures_the_published_plans_again(tuned, cli):
    code, out, _ = cli("recheck", table_of(tuned[0]), "--rounds", 4, "--device", "cpu")
    assert code in {0, 1}
    assert "all good" in out or "could not be told" in out if code == 0 else "not as good" in out


def test_max_tokens_cuts_a_file_down(cli, write, tmp_path):
    shapes = write(MODEL + "batch_specs: [q1s64, 400000q1s128k]\nrepeats: 3\n")
    code, out, err = cli(*options(tmp_path), "--shapes", shapes, "--max-tokens", "1k")
    assert code == 0, err
    assert "1 larger shapes left out" in out
    assert "repeats: skipped" in out


def test_a_recording_played_into_a_clone_of_this_project_says_so(cli, tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    (clone / "src" / "mla_tune").mkdir(parents=True)
    (clone / "src" / "mla_tune" / "__init__.py").touch()
    monkeypatch.chdir(clone)
    recording = Path(__file__).parents[1] / "data" / "seeds" / "recording.jsonl"
    study = ["--study-dir", tmp_path / "study"]
    code, out, err = cli("--backend", "RECORDED", "--recording", recording, *study)
    assert code == 0, err
    assert "is this project's own folder" in out
    assert "both or neither" in refused(cli, "--recording", recording, *study)


def test_a_recording_is_played_back(cli, write, tmp_path):
    shapes = write(MODEL + "batch_specs: [2q1s300]\n")
    recording = tmp_path / "run.jsonl.gz"
    code, _, err = cli(*options(tmp_path), "--shapes", shapes, "--record", recording)
    assert code == 0, err
    played = ["--backend", "RECORDED", "--recording", recording, "--out", tmp_path / "played",
              "--study-dir", tmp_path / "study2"]  # fmt: skip
    code, out, err = cli(*played)
    assert code == 0, err
    assert "2q1s300" in out
    assert len(list((tmp_path / "played").glob("*.yaml"))) == 1


def test_a_file_that_is_no_recording_is_not_recorded_over(cli, write, tmp_path):
    shapes = write(MODEL + "batch_specs: [2q1s300]\n")
    before = shapes.read_bytes()
    code, _, err = cli(*options(tmp_path), "--shapes", shapes, "--record", shapes)
    assert code == 2
    assert "not a line of a recording" in err
    assert shapes.read_bytes() == before
    assert not (tmp_path / "study").exists()


def test_a_recording_that_a_kill_has_torn_is_played_back_and_says_so(cli, tmp_path):
    seed = Path(__file__).parents[1] / "data" / "seeds" / "recording-2.jsonl.gz"
    (tmp_path / "torn.gz").write_bytes(seed.read_bytes()[:-7])
    code, out, err = cli(
        *("--backend", "RECORDED", "--recording", tmp_path / "torn.gz", "--confirm-seconds", "0.1"),
        *("--out", tmp_path / "out", "--study-dir", tmp_path / "study"),
    )
    assert code == 0, err
    assert "cut off after line" in "".join((out + err).split("\n"))


# Help.


def test_help_loads_nothing_heavy():
    program = """
import sys
from mla_tune.cli.commands import main
from mla_tune.device.lock import FOLDER_VARIABLE
sys.argv = ["mla-tune", "--help"]
try:
    main()
except SystemExit:
    pass
heavy = ("torch", "optuna", "vllm", "pydantic", "numpy", "scipy", "rich", "yaml")
print("loaded:", [name for name in heavy if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "--backend" in done.stdout
    assert "loaded: []" in done.stdout


def test_the_installed_command_answers():
    command = Path(sys.executable).with_name("mla-tune")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert re.search(r"mla-tune.*\d+\.\d+", done.stdout)


# Bad input: exit code 2, and what, where, valid and to do in the message.


def refused(cli, *arguments) -> str:
    code, _, err = cli(*arguments)
    assert code == 2, err
    assert "Traceback" not in err
    return err


BAD_FILES = {
    "missing": (None, ["does not exist", "check the path"]),
    "empty": ("", ["is empty", "a YAML mapping"]),
    "not a mapping": ("- q1\n", ["not a mapping"]),
    "not YAML": ("model: [\n", [":2: not valid YAML"]),
    "unknown key": (MODEL + "batch_spec: [q1]\n", [":2:", "'batch_spec'", "'batch_specs'?"]),
    "bad spec": (MODEL + "batch_specs: [8q1s1k_8x1]\n", [":2:", "'8x1'", "^^^", "such as q2k"]),
    "KV below query": (MODEL + "batch_specs: [q64s32]\n", [":2:", "KV length 32", "64"]),
    "zero count": (MODEL + "batch_specs: [0q1s1k]\n", [":2:", "'0q1s1k'", "zero"]),
    "negative": (MODEL + "batch_specs: [q1]\nbatch_sizes: [-3]\n", [":3: batch_sizes.0", "-3"]),
    "duplicate": (MODEL + "batch_specs: [q1s1k, q1s1024]\n", ["'q1s1k' stands twice", "remove"]),
    "unknown model": ("model: kimik2\nbatch_specs: [q1]\n", [":1:", "'kimik2'", "'kimi-k2'?"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_shapes_file_is_refused(cli, tmp_path, case):
    text, says = BAD_FILES[case]
    path = tmp_path / "shapes.yaml"
    if text is not None:
        path.write_text(text)
    message = refused(cli, *options(tmp_path), "--shapes", path)
    assert str(path) in message
    for part in says:
        assert part in message


def test_a_home_in_quotes_is_the_users(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(tmp_path / "absent.yaml") in refused(cli, "--shapes", "~/absent.yaml")
    assert str(tmp_path / "absent.yaml") in refused(cli, "show", "~/absent.yaml")
    assert "table ~absent.yaml does not exist" in refused(cli, "show", "~absent.yaml")


def test_a_home_that_is_not_known_is_refused(cli, monkeypatch):
    monkeypatch.delenv("HOME")

    def unknown(_uid):
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert "home directory" in refused(cli, "show", "~/absent.yaml")


def test_a_run_without_shapes_is_refused(cli):
    assert "--shapes" in refused(cli)


NUMBERS = ("--min-speedup", "--confirm-seconds", "--sample-timeout", "--plan-timeout")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--max-tokens", "many"], "above 0"),
        (["--max-tokens", "0"], "above 0"),
        (["--max-tokens", "5"], "64 or more for this file"),
        (["--tensor-parallel-size", "3"], "does not divide 2"),
        (["--tensor-parallel-size", "0"], "0"),
        (["--min-speedup", "0.5"], "0.5"),
        (["--recording", "x.jsonl"], "both or neither"),
        (["--bogus"], "--bogus"),
        (["--device", "gpu"], "did you mean 'cuda'?"),
        (["--device", "mps"], "cpu, cuda, or cuda:N"),
        (["--device", "0"], "did you mean 'cuda:0'?"),
        (["--device", "xyz"], "unknown device 'xyz'"),
        *(
            ([option, value], option)
            for option in NUMBERS
            for value in ("nan", "inf", "-inf", "1e400", "-1")
        ),
        (["--sample-timeout", "1e9"], "604800"),  # more than poll(2) can wait
    ],
)
def test_a_bad_flag_is_refused(cli, write, tmp_path, arguments, says):
    shapes = write(SHAPES)
    assert says in refused(cli, *options(tmp_path), "--shapes", shapes, *arguments)


@pytest.mark.parametrize("command", [[], ["backends"], ["recheck", "t.yaml"]])
def test_what_is_no_device_starts_no_worker(cli, monkeypatch, command):
    monkeypatch.setattr("mla_tune.tuning.run.WorkerBench", None)
    assert "unknown device 'gpu'" in refused(cli, *command, "--device", "gpu")


def test_a_gpu_that_is_not_there_is_refused_with_the_devices_that_are(cli):
    message = refused(cli, "backends", "--device", "cuda:99")
    assert "device cuda:99 is not there" in message
    assert "valid: cpu" in message


def test_an_unknown_backend_lists_the_known_ones_and_those_that_run_here(cli, write, tmp_path):
    where = options(tmp_path)[2:]
    message = refused(cli, "--backend", "TORCH_MAL", *where, "--shapes", write(SHAPES))
    assert "unknown backend 'TORCH_MAL'" in message
    assert all(name in message for name in NAMES)
    assert "run here: TORCH_MLA" in message
    assert "did you mean 'TORCH_MLA'?" in message


def test_a_backend_that_does_not_run_here_says_why_and_what_does(cli, write, tmp_path):
    where = options(tmp_path)[2:]
    message = refused(cli, "--backend", "FLASHMLA", *where, "--shapes", write(SHAPES))
    assert "FLASHMLA" in message
    assert "available here: TORCH_MLA" in message


def test_a_file_that_lists_no_backend_that_runs_here_is_refused(cli, write, tmp_path):
    shapes = write(SHAPES + "backends: [cutlass_mla, flux_mla]\n")
    message = refused(cli, *options(tmp_path)[2:], "--shapes", shapes)
    assert str(shapes) in message
    assert "--backend" in message


def test_a_shape_that_does_not_fit_is_refused_before_it_is_allocated(cli, write, tmp_path):
    shapes = write(MODEL + "batch_specs: [q1s64, 40000q1s128k]\n")
    message = refused(cli, *options(tmp_path), "--shapes", shapes)
    for part in (str(shapes), "40000q1s128k", "GiB are free on cpu", "--max-tokens"):
        assert part in message
    assert trials(tmp_path) == []


def test_an_output_folder_that_cannot_be_written_is_refused_before_measuring(cli, write, tmp_path):
    (tmp_path / "out").write_text("a file")
    message = refused(cli, *options(tmp_path), "--shapes", write(SHAPES))
    assert str(tmp_path / "out") in message
    assert "--out" in message
    assert trials(tmp_path) == []
    assert (tmp_path / "out").read_text() == "a file"


def test_a_study_folder_that_cannot_be_written_is_refused(cli, write, tmp_path):
    (tmp_path / "study").write_text("a file")
    message = refused(cli, *options(tmp_path), "--shapes", write(SHAPES))
    assert "--study-dir" in message


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            f"schema_version: {SCHEMA_VERSION}",
            "schema_version: 7",
            ["schema version 7", "upgrade mla-tune"],
        ),
        ("sm_count: ", "sm_count: 9", ["is for device", "this run is for", "--out", "--replace"]),
        ("num_q_heads: 2", "num_q_heads: 4", ["is for model", "--out", "--replace"]),
        ("torch: ", "torch: x", ["is for software"]),
        ("entries:", "entry:", ["entry"]),
    ],
)
def test_a_table_that_is_true_for_something_else_is_refused_and_left_alone(
    tuned, cli, tmp_path, old, new, says
):
    folder, _, _ = tuned
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / table_of(folder).name
    path.write_text(table_of(folder).read_text().replace(old, new, 1))
    before = path.read_bytes()
    message = refused(cli, *options(tmp_path), "--shapes", folder / "shapes.yaml")
    assert str(path) in message
    for part in says:
        assert part in message
    assert path.read_bytes() == before
    assert trials(tmp_path) == []


@pytest.mark.parametrize("command", ["show", "lookup"])
def test_a_table_that_is_missing_is_refused(cli, tmp_path, command):
    question = ["--batch", 1, "--kv-len", 1] if command == "lookup" else []
    message = refused(cli, command, tmp_path / "absent.yaml", *question)
    assert "absent.yaml does not exist" in message


@pytest.mark.parametrize(
    "question",
    [
        [],
        ["--batch", 8],
        ["--batch", 0, "--kv-len", 1],
        ["--batch", 1, "--kv-len", "0"],
        ["--batch", 1, "--kv-len", 4, "--query-len", 8],
        ["--shape", "oops"],
        ["--shape", "q1", "--batch", 1, "--kv-len", 1],
        ["--batch", 1, "--kv-len", 1, "--within", 0.5],
        ["--batch", 1, "--kv-len", 1, "--within", "nan"],
        ["--batch", 1, "--kv-len", 1, "--within", "inf"],
    ],
)
def test_a_question_without_meaning_is_refused(tuned, cli, question):
    refused(cli, "lookup", table_of(tuned[0]), *question)


# Ctrl-C and kill -9 in the middle of a real run.


# Enough to be still at it when a signal arrives on a busy machine.
RUNNING_SPECS = ("4q4s1k_8q1s2k", "2q1s300", "2q3s700", "5q1s900", "2q6s1100", "4q1s1300")


@pytest.fixture
def running(tmp_path):
    """A real run with trials on disk and more to come."""
    shapes = tmp_path / "shapes.yaml"
    shapes.write_text(MODEL + f"batch_specs: [{', '.join(RUNNING_SPECS)}]\n")
    command = [*MAIN, *options(tmp_path), "--shapes", str(shapes)]
    run = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts its background jobs with Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while len(trials(tmp_path)) < 3:
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield run, command, tmp_path
    run.kill()
    run.communicate()


def assert_goes_on(folder: Path, command: list[str], before: list) -> None:
    """The same command again finishes, keeps every trial, and repeats none."""
    assert len(before) >= 3
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = trials(folder)
    assert after[: len(before)] == before
    knobs = [(study, json.dumps(outcome["knobs"])) for study, outcome in after]
    assert len(set(knobs)) == len(knobs)
    assert len(Table.load(table_of(folder)).entries) == len(RUNNING_SPECS)


def test_ctrl_c_ends_at_once_keeps_every_trial_and_says_how_to_go_on(running):
    run, command, folder = running
    pressed = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: the worker gets it as well
    _, errors = run.communicate(timeout=60)
    assert time.monotonic() - pressed < 3.0  # a second, and slack for a busy machine
    assert run.returncode == 130, errors
    assert "Traceback" not in errors
    assert str(folder / "study") in errors
    assert "Run the same command to go on" in errors
    assert_goes_on(folder, command, trials(folder))


def test_kill_9_loses_no_trial_and_leaves_no_worker(running):
    run, command, folder = running
    children = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.communicate()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    assert_goes_on(folder, command, trials(folder))


@pytest.fixture
def stopped(running):
    """That run, stopped where it was: it holds its locks and gets no further."""
    run, _, folder = running
    os.kill(run.pid, signal.SIGSTOP)
    yield run, folder
    os.kill(run.pid, signal.SIGCONT)


def test_a_second_run_on_the_same_study_is_refused_while_the_first_goes_on(
    stopped, cli, monkeypatch
):
    _, folder = stopped
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder / "locks"))
    message = refused(cli, *options(folder), "--shapes", folder / "shapes.yaml")
    assert "in use by another run" in message
    assert "--study-dir" in message


def test_a_second_run_on_the_device_is_refused_or_waits_whatever_its_study_is(stopped, tuned, cli):
    run, folder = stopped
    shapes, holder = folder / "shapes.yaml", f"cpu is in use by another run: process {run.pid} on "
    message = refused(cli, *options(folder / "2"), "--shapes", shapes)
    assert holder in message
    assert "--wait" in message
    assert trials(folder / "2") == []
    assert holder in refused(cli, "recheck", table_of(tuned[0]), "--device", "cpu")
    waits = [*options(folder / "3"), "--shapes", str(shapes), "--max-tokens", "600", "--wait"]
    with subprocess.Popen([*MAIN, *waits], stdout=subprocess.PIPE, text=True) as waiting:
        shown = [waiting.stdout.readline() for _ in range(2)]
        assert holder in shown[-1]
        run.kill()
        rest, _ = waiting.communicate(timeout=120)
    assert waiting.returncode == 0
    assert "2q1s300" in rest
