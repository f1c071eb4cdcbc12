from contextlib import contextmanager
from dataclasses import replace

import pytest

import mla_tune.tuning.dry_run as module
from fake_device import DEFAULT, ENVIRONMENT, FakeBench, splits
from mla_tune.errors import InputError
from mla_tune.tuning.campaign import Campaign
from mla_tune.tuning.dry_run import estimated_seconds, planned_tables
from mla_tune.tuning.reporters import SilentReporter
from mla_tune.tuning.run_options import RunOptions
from mla_tune.tuning.settings import Settings


def on(monkeypatch, environment):
    @contextmanager
    def scratch_worker(_device):
        bench = FakeBench({DEFAULT: 100.0})
        bench.environment = environment
        yield bench

    monkeypatch.setattr(module, "scratch_worker", scratch_worker)


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Options of a run whose device is a fake one."""
    on(monkeypatch, ENVIRONMENT)
    shapes = {"model": "deepseek-v2-lite", "batch_specs": ["8q1s1k", "8q1s2k"]}
    folders = {"out": tmp_path / "out", "study_dir": tmp_path / "study"}
    return RunOptions(shapes=shapes, backends=("TORCH_MLA",), device="cpu", **folders)


def planned(options):
    return planned_tables(options, lambda _what: None)


def tune(options):
    (table,) = planned(options)
    clock = iter(range(0, 10**6, 2))
    bench = FakeBench({DEFAULT: 100.0, splits(2): 80.0})
    settings = Settings(confirmation_rounds=16, processes=1)
    campaign = Campaign(
        *(bench, options.study_folder, settings, SilentReporter(), False, lambda: next(clock))
    )
    campaign.run([table.job])


def test_before_a_run_nothing_is_decided_and_nothing_is_written(asked, tmp_path):
    (table,) = planned(asked)
    assert [str(workload) for workload in table.left] == ["8q1s1k", "8q1s2k"]
    assert (table.decided, table.problem, table.is_known) == ((), "", False)
    assert list(tmp_path.iterdir()) == []
    one, three = (estimated_seconds([table], replace(asked, processes=n)) for n in (1, 3))
    assert 0 < one < three


def test_what_the_studies_have_is_decided_and_says_how_long_it_took(asked):
    tune(asked)
    (table,) = planned(asked)
    assert (table.left, len(table.decided)) == ((), 2)
    assert estimated_seconds([table], asked) == 0
    (again,) = planned(replace(asked, again=True))
    assert (len(again.left), again.is_known) == (2, True)
    more = {**asked.shapes, "batch_specs": ["8q1s1k", "8q1s4k"]}
    (table,) = planned(replace(asked, shapes=more))
    assert [str(workload) for workload in table.left] == ["8q1s4k"]


def test_a_table_that_cannot_be_added_to_is_told(asked):
    (table,) = planned(asked)
    table.job.path.parent.mkdir()
    table.job.path.write_text("schema_version: 99\n")
    (table,) = planned(asked)
    assert "99" in table.problem
    assert planned(replace(asked, replace=True))[0].problem == ""


@pytest.mark.parametrize("given", [{"ray": "auto"}, {"storage": "postgresql://db/mla"}])
def test_what_it_cannot_look_at_is_refused(asked, given):
    with pytest.raises(InputError, match="--dry-run"):
        planned(replace(asked, study_dir=None, **given))


@pytest.mark.parametrize("option", ["out", "study_dir"])
def test_a_folder_that_the_run_would_refuse_is_refused(asked, tmp_path, option):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is no folder"):
        planned(replace(asked, **{option: tmp_path / "file"}))


def test_the_journal_is_that_of_the_same_software(asked, monkeypatch):
    tune(asked)
    on(monkeypatch, replace(ENVIRONMENT, software={"torch": "9.9"}))
    (table,) = planned(replace(asked, replace=True))
    assert table.decided == ()
