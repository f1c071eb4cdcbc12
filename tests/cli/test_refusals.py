"""Bad input: exit code 2, and a message that says what, where, what is valid and what to do."""

import pwd

import pytest
from command_line import MODEL, SHAPES, options, refused, table_of, trials

from mla_tune.registry import BACKENDS
from mla_tune.table.header import WITHOUT_BETWEEN

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
    assert "--shapes" in refused(cli, "tune")


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
        (["--processes", "0"], "--processes"),
        (["--guard", "served"], "serve for a day with MLA_TUNE_RECORD=PATH"),
        (["--guard", "served", "--served", "absent.json"], "no traffic histogram absent.json"),
        (["--recording", "x.jsonl"], "both or neither"),
        (["--bogus"], "--bogus"),
        (["--device", "gpu"], "did you mean 'cuda'?"),
        (["--device", "mps"], "cpu, cuda, or cuda:N"),
        (["--device", "0"], "did you mean 'cuda:0'?"),
        (["--device", "xyz"], "unknown device 'xyz'"),
        (["--devices", "xyz"], "'xyz' is no GPU"),
        (["--devices", "0,1", "--device", "cpu"], "--device and --devices"),
        (["--ray", "auto", "--record", "x"], "--record and --ray"),
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


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", ""],
        ["show", "bundled", "--gpu", " "],
        ["tables", "--vllm", ""],
        ["compare", "bundled", "--model", ""],
        ["check", ""],
        ["serve", "--backend", "", "--", "vllm", "serve", "m"],
        ["--backend", "TORCH_MLA", "--shapes", ""],
        ["--backend", "TORCH_MLA", "--shapes", "s.yaml", "--out", ""],
    ],
)
def test_what_a_shell_left_empty_is_no_name_and_not_the_working_folder(cli, arguments):
    assert "it is empty" in refused(cli, *arguments)


@pytest.mark.parametrize("command", [[], ["backends"], ["recheck", "t.yaml"]])
def test_what_is_no_device_starts_no_worker(cli, monkeypatch, command):
    monkeypatch.setattr("mla_tune.tuning.device_bench.WorkerBench", None)
    assert "unknown device 'gpu'" in refused(cli, *command, "--device", "gpu")


def test_a_gpu_that_is_not_there_is_refused_with_the_devices_that_are(cli):
    message = refused(cli, "backends", "--device", "cuda:99")
    assert "device cuda:99 is not there" in message
    assert "valid: cpu" in message


def test_an_unknown_backend_lists_the_known_ones_and_those_that_run_here(cli, write, tmp_path):
    where = options(tmp_path)[2:]
    message = refused(cli, "--backend", "TORCH_MAL", *where, "--shapes", write(SHAPES))
    assert "unknown backend 'TORCH_MAL'" in message
    assert all(name in message for name in BACKENDS.names)
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
            f"schema_version: {WITHOUT_BETWEEN}",
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
