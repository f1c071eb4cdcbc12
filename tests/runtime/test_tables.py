import os
from pathlib import Path

import pytest
from tabled_engine import WriteTable, cpu_header, entry

from mla_tune.errors import InputError
from mla_tune.knobs import Plan
from mla_tune.runtime.lookups import Lookups
from mla_tune.runtime.registration import _as_asked
from mla_tune.runtime.tables import load_tables, locate


def test_files_and_folders_may_stand_side_by_side(write_table: WriteTable, tmp_path: Path) -> None:
    one = write_table(cpu_header(), entry("8q1s1k", None), name="one.yaml")
    deep = tmp_path / "deep" / "deeper"
    deep.mkdir(parents=True)
    two = deep / "two.yml"
    two.write_text(one.read_text())
    assert locate(f"{one}{os.pathsep}{tmp_path / 'deep'}") == [one, two]


def test_a_mounted_config_map_holds_each_table_once(
    write_table: WriteTable, tmp_path: Path
) -> None:
    one = write_table(cpu_header(), entry("8q1s1k", None), name="one.yaml")
    mount = tmp_path / "etc"
    version = mount / "..2026_11_21_10_00_00.123456789"
    version.mkdir(parents=True)
    (version / "one.yaml").write_text(one.read_text())
    (mount / "..data").symlink_to(version.name)
    (mount / "one.yaml").symlink_to("..data/one.yaml")
    assert locate(str(mount)) == [mount / "one.yaml"]


@pytest.mark.parametrize("setting", ["/nowhere/at/all", "an-empty-folder", "n" * 5000])
def test_a_setting_that_names_nothing_is_refused(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("an-empty-folder").mkdir()
    with pytest.raises(InputError, match="MLA_TUNE_TABLES names"):
        locate(setting)


def test_the_shipped_tables_are_found_in_a_checkout() -> None:
    import mla_tune.runtime.tables as tables

    assert tables._bundled() == Path(__file__).parents[2] / "tuned_configs"


def test_a_malformed_table_costs_only_itself(write_table: WriteTable, tmp_path: Path) -> None:
    good = write_table(cpu_header(), entry("8q1s1k", Plan(num_kv_splits=4)), name="good.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text(good.read_text().replace("num_kv_splits", "kv_splits"))
    torn = tmp_path / "torn.yaml"
    torn.write_text("entries: [")
    tables, problems = load_tables(str(tmp_path))
    assert [loaded.path for loaded in tables] == [good]
    assert [problem.split(":")[0] for problem in problems] == [str(bad), str(torn)]
    assert "kv_splits" in problems[0]


@pytest.mark.parametrize("asked", ["", "0", "1"])
def test_a_plan_that_is_not_proven_acts_only_when_asked_for(
    asked: str,
    write_table: WriteTable,
    messages: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proven = entry("8q1s1k", Plan(num_kv_splits=4))
    path = write_table(cpu_header(), proven)
    found = Plan(num_kv_splits=2)
    path.write_text(
        path.read_text() + "  - {shape: 64q1s4k, plan: {num_kv_splits: 2}, latency_us: 5}\n"
    )
    monkeypatch.setenv("MLA_TUNE_UNPROVEN", asked)
    tables, problems = load_tables(str(path))
    (loaded,) = _as_asked(tables)
    plans = {found.shape: found.plan for found in loaded.table.entries}
    assert problems == []
    assert plans["64q1s4k"] == (found if asked == "1" else None)
    assert plans["8q1s1k"] == proven.plan
    lookups = Lookups(loaded.table, None)
    assert lookups.captured(64, 1).num_kv_splits == (2 if asked == "1" else None)
    assert len(messages) == 1
    assert "1 unproven plan" in messages[0]


@pytest.mark.parametrize(
    ("backend", "plan", "says"),
    [
        (
            "TRITON_MLA",
            "num_kv_splits: 1000000000",
            "TRITON_MLA cannot have num_kv_splits 1000000000",
        ),
        ("TRITON_MLA", "num_kv_splits: -5", "TRITON_MLA cannot have num_kv_splits -5"),
        ("CUTLASS_MLA", "num_kv_splits: 4096", "valid: -1 or 1 to 16"),
        ("FLASHMLA", "reorder_batch_threshold: 2147483648", "valid: 1 to 8192"),
    ],
)
def test_a_plan_out_of_bounds_keeps_its_table_out_of_the_engine(
    backend: str, plan: str, says: str, write_table: WriteTable, tmp_path: Path
) -> None:
    good = write_table(cpu_header(), entry("8q1s1k", Plan(num_kv_splits=4)), name="good.yaml")
    bad = write_table(cpu_header(backend, mode="eager"), entry("8q1s1k", None), name="bad.yaml")
    bad.write_text(bad.read_text().replace("plan: default", f"plan: {{{plan}}}"))
    tables, problems = load_tables(str(tmp_path))
    assert [loaded.path for loaded in tables] == [good]
    assert len(problems) == 1
    assert problems[0].startswith(f"{bad}:")
    assert says in problems[0]


def test_a_table_of_a_backend_that_is_not_known_costs_only_itself(
    write_table: WriteTable, tmp_path: Path
) -> None:
    good = write_table(cpu_header(), entry("8q1s1k", None), name="good.yaml")
    newer = tmp_path / "newer.yaml"
    newer.write_text(good.read_text().replace("TRITON_MLA", "QUANTUM_MLA"))
    tables, problems = load_tables(str(tmp_path))
    assert [loaded.path for loaded in tables] == [good]
    assert "backend 'QUANTUM_MLA' is not known here; valid: TORCH_MLA, TRITON_MLA" in problems[0]


def test_every_shipped_table_is_within_bounds() -> None:
    tables, problems = load_tables("bundled")
    assert problems == []
    assert len(tables) == 24
