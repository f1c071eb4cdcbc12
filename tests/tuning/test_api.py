"""`mla_tune.tune` and `mla_tune.Table`: the examples of their docstrings, and what they refuse."""

import doctest
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import mla_tune
from fake_device import DEFAULT, FakeBench, splits
from mla_tune.cli.commands import main
from mla_tune.errors import InputError, WorkloadFailure
from mla_tune.shapes.file import checked_shapes
from mla_tune.shapes.mapping import MappingDocument
from mla_tune.table import Table, lookup
from mla_tune.tuning import api
from mla_tune.tuning.run_options import RunOptions
from mla_tune.tuning.tune_options import TuneOptions

ROOT = Path(__file__).parents[2]
TINY = {
    "model": {"name": "tiny", "num_q_heads": 2, "kv_lora_rank": 32, "qk_nope_head_dim": 16}
    | {"qk_rope_head_dim": 8, "v_head_dim": 16},
    "batch_specs": ["q1s64"],
}


def examples_of(module):
    return [test for test in doctest.DocTestFinder().find(module) if test.examples]


@pytest.mark.parametrize(
    ("module", "of"), [(api, "mla_tune.tuning.api.tune"), (lookup, "mla_tune.table.lookup.Table")]
)
def test_the_example_of_a_docstring_runs(module, of, tmp_path, monkeypatch, capsys):
    (tmp_path / "tuned_configs").symlink_to(ROOT / "tuned_configs")
    monkeypatch.chdir(tmp_path)
    (test,) = examples_of(module)
    assert test.name == of
    failed = doctest.DocTestRunner().run(test, out=sys.stdout.write).failed
    assert not failed, capsys.readouterr().out


def test_what_the_guide_calls_is_there(monkeypatch):
    text = (ROOT / "docs" / "tune.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    asked = []

    def run(options, _reporter):
        asked.append(options)
        path = next((ROOT / "tuned_configs").glob("TRITON_MLA*"))
        tuned = api.TunedTable(path, Table.load(path).entries)
        return api.TuneResult((tuned,), (api.Failure(path, ("q1",), InputError("no")),))

    monkeypatch.setattr(api, "run", run)
    exec(program, {})
    (options,) = asked
    checked_shapes(MappingDocument.of(options.shapes))


# What is refused, before a worker is started.


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Call `tune`, which is to refuse; returns its error."""

    def no_worker(*_arguments):
        pytest.fail("a worker was started")

    monkeypatch.setattr("mla_tune.tuning.device_bench.WorkerBench", no_worker)
    monkeypatch.chdir(tmp_path)

    def call(shapes=TINY, **options):
        with pytest.raises(InputError) as caught:
            mla_tune.tune(shapes, **options)
        assert list(tmp_path.iterdir()) == []
        return caught.value

    return call


def test_a_mapping_is_checked_as_a_file_is_and_its_keys_are_named(refused):
    error = refused(TINY | {"batch_spec": ["q1"]})
    assert "shapes['batch_spec']: unknown key 'batch_spec'" in error.what
    assert error.remedy == "did you mean 'batch_specs'?"
    assert "shapes['batch_specs'][1]: " in refused(TINY | {"batch_specs": ["q1", "8x1"]}).what
    assert "shapes['engine']['block_size']: " in refused(TINY | {"engine": {"block_size": 0}}).what
    assert "shapes['model']" in refused(TINY | {"model": {"num_q_heads": "2"}}).what
    assert refused({}).what == "shapes: no batch shapes"


@pytest.mark.parametrize(
    ("shapes", "named"),
    [
        ({"batch_specs": {"q1s64"}}, "shapes['batch_specs'] is of type set"),
        ({"grids": [{"kv_lens": b"4k"}]}, "shapes['grids'][0]['kv_lens'] is of type bytes"),
        ({("batch", "specs"): []}, "a key must be a word or a number"),
    ],
)
def test_a_value_that_no_shapes_file_holds_is_refused_by_its_key(refused, shapes, named):
    assert named in refused(shapes).what


def test_a_mapping_that_holds_itself_is_refused(refused):
    shapes = {}
    shapes["engine"] = shapes
    assert "nested too deeply" in refused(shapes).what


def test_a_file_that_is_not_there_is_named(refused):
    assert "nowhere.yaml does not exist" in refused("nowhere.yaml").what


BAD_OPTIONS = [
    *({"confirm_seconds": value} for value in (0, -1, float("nan"), float("inf"), "30", None)),
    *({"sample_timeout": value} for value in (0.01, 10**7, True)),
    *({"min_speedup": value} for value in (0.5, float("inf"), float("nan"), "1.1")),
    *({"max_tokens": value} for value in (0, 1.5, "4k", True)),
    *({"tensor_parallel_size": value} for value in (0, "2", [2, "2"], 1.5, True, {2})),
    *({"record_rounds": value} for value in (-1, 10**6)),
    *({"backends": value} for value in (5, ["TORCH_MLA", None])),
    *({option: 5} for option in ("out", "study_dir", "record", "recording")),
    *({"device": value} for value in ("gpu", "cuda:x", None)),
]


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=str)
def test_an_option_is_refused_by_its_name_with_what_is_valid(refused, options):
    error = refused(**options)
    assert next(iter(options)) in error.what
    assert error.valid


def test_shapes_that_are_no_path_and_no_mapping_are_refused(refused):
    assert "shapes is 5" in refused(5).what
    assert "--shapes FILE is missing" in refused(None).what


# The options are the command's.


def test_the_options_are_those_of_the_command():
    assert {"shapes", *TuneOptions.__annotations__} == {field.name for field in fields(RunOptions)}
    for name in TuneOptions.__annotations__:
        assert f"    {name}: " in TuneOptions.__doc__


def test_an_option_that_there_is_not_is_a_mistake_in_the_program():
    with pytest.raises(TypeError, match="confirm_second'"):
        mla_tune.tune(TINY, confirm_second=3.0)


def test_the_command_without_options_is_the_call_without_any(monkeypatch):
    asked = []

    def run(options, _reporter):
        asked.append(options)
        return api.TuneResult((), ())

    monkeypatch.setattr("mla_tune.tuning.run.run", run)
    monkeypatch.setattr(api, "run", run)
    monkeypatch.setattr(sys, "argv", ["mla-tune", "tune"])
    with pytest.raises(SystemExit, match="0"):
        main()
    mla_tune.tune()
    assert asked == [RunOptions(), RunOptions()]


# A run, on the fake device.


class FakeWorker(FakeBench):
    """Stands where a `WorkerBench` stands: no process, the fake device."""

    interrupted_at = ""

    def __init__(self, device, log, *_limits, renewals=0):
        del renewals
        super().__init__({DEFAULT: 100.0, splits(2): 80.0}, noise=0.01)
        self.device = device
        self.log = log
        self.clock = type("Clock", (), {"now": staticmethod(lambda: 0.0)})

    def free_bytes(self):
        return 2**40

    def device_identity(self):
        return "fake"

    def load(self, workload):
        if str(workload) == self.interrupted_at:
            raise KeyboardInterrupt
        super().load(workload)


@pytest.fixture
def tune(tmp_path, monkeypatch):
    monkeypatch.setattr("mla_tune.tuning.device_bench.WorkerBench", FakeWorker)

    def call(*specs, **options):
        places = {"out": str(tmp_path / "out"), "study_dir": tmp_path / "study"}
        shapes = TINY | {"batch_specs": specs}
        return mla_tune.tune(shapes, backends="TORCH_MLA", device="cpu", **places, **options)

    return call


def test_the_result_has_each_table_with_what_this_run_decided(tune, capfd):
    tune("8q1s1k")
    result = tune("8q1s2k", "8q1s4k")
    (tuned,) = result.tables
    assert [entry.shape for entry in tuned.entries] == ["8q1s2k", "8q1s4k"]
    assert [entry.shape for entry in tuned.table.entries] == ["8q1s1k", "8q1s2k", "8q1s4k"]
    assert tuned.table.lookup(batch=8, kv_len=2048).plan == splits(2)
    assert result.failures == ()
    assert capfd.readouterr() == ("", "")


def test_a_reporter_is_told_of_what_it_overrides(tune):
    told = []

    class Mine(api.SilentReporter):
        def decided(self, job, workload, entry):
            told.append((job.setup.backend, str(workload), entry.plan))

    tune("8q1s1k", reporter=Mine())
    assert told == [("TORCH_MLA", "8q1s1k", splits(2))]


def test_what_could_not_be_tuned_is_in_the_result(tune, monkeypatch, tmp_path):
    def load(self, workload):
        if str(workload) == "8q1s2k":
            raise WorkloadFailure("cannot load: no memory")
        FakeBench.load(self, workload)

    monkeypatch.setattr(FakeWorker, "load", load)
    result = tune("8q1s1k", "8q1s2k")
    (failure,) = result.failures
    assert failure.shapes == ("8q1s2k",)
    assert failure.path == result.tables[0].path
    assert failure.path.parent == tmp_path / "out"
    assert failure.what == f"{failure.path.stem}: 8q1s2k"
    assert failure.error.what == "cannot load: no memory"


def test_an_interrupted_run_keeps_what_it_has_and_goes_on(tune, monkeypatch, tmp_path):
    with monkeypatch.context() as patched:
        patched.setattr(FakeWorker, "interrupted_at", "8q1s2k")
        with pytest.raises(KeyboardInterrupt):
            tune("8q1s1k", "8q1s2k", processes=1)
    (path,) = (tmp_path / "out").glob("*.yaml")
    assert [entry.shape for entry in mla_tune.Table.load(path).entries] == ["8q1s1k"]
    (tuned,) = tune("8q1s1k", "8q1s2k").tables
    assert [entry.shape for entry in tuned.entries] == ["8q1s1k", "8q1s2k"]


# The package's own name.


def test_importing_the_package_imports_nothing_heavy():
    heavy = ("pydantic", "yaml", "torch", "click", "optuna", "rich", "numpy", "scipy", "psutil")
    program = (
        "import sys, mla_tune; mla_tune.__version__; dir(mla_tune)\n"
        f"print([name for name in {heavy} if name in sys.modules])\n"
        "print(sorted(name for name in sys.modules if name.startswith('mla_tune')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n['mla_tune', 'mla_tune._version']\n"


def test_the_package_offers_what_it_lists():
    errors = {"EnvironmentFailure", "InputError", "MlaTuneError"}
    offered = {"Lookup", "Plan", "Table", "TuneResult", "__version__", "tune"}
    assert set(mla_tune.__all__) == offered | errors
    assert set(mla_tune.__all__) <= set(dir(mla_tune))
    assert all(getattr(mla_tune, name) is not None for name in mla_tune.__all__)
    assert mla_tune.tune is api.tune
    assert mla_tune.TuneResult is api.TuneResult
    assert mla_tune.Table is Table
    with pytest.raises(AttributeError, match="no attribute 'tuned'"):
        mla_tune.tuned  # noqa: B018
