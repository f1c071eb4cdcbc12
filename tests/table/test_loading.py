import os
from pathlib import Path
from typing import Any

import pytest

import mla_tune.table.loading as runtime_tables
from mla_tune.errors import InputError
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.table import folders
from mla_tune.table.loading import load_tables, locate
from tabled_engine import WriteTable, cpu_header, entry


def test_files_and_folders_may_stand_side_by_side(write_table: WriteTable, tmp_path: Path) -> None:
    one = write_table(cpu_header(), entry("8q1s1k", UNTUNED), name="one.yaml")
    deep = tmp_path / "deep" / "deeper"
    deep.mkdir(parents=True)
    two = deep / "two.yml"
    two.write_text(one.read_text())
    tables, problems = load_tables(f"{one}{os.pathsep}{tmp_path / 'deep'}{os.pathsep}")
    assert [loaded.path for loaded in tables] == [one, two]
    assert problems == []


def test_a_mounted_config_map_holds_each_table_once(
    write_table: WriteTable, tmp_path: Path
) -> None:
    one = write_table(cpu_header(), entry("8q1s1k", UNTUNED), name="one.yaml")
    mount = tmp_path / "etc"
    version = mount / "..2026_11_21_10_00_00.123456789"
    version.mkdir(parents=True)
    (version / "one.yaml").write_text(one.read_text())
    (mount / "..data").symlink_to(version.name)
    (mount / "one.yaml").symlink_to("..data/one.yaml")
    assert locate(str(mount)) == ([mount / "one.yaml"], [])


@pytest.mark.parametrize("setting", ["/nowhere/at/all", "an-empty-folder", "n" * 5000])
def test_a_setting_that_names_nothing_is_refused(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("an-empty-folder").mkdir()
    with pytest.raises(InputError, match="MLA_TUNE_TABLES names"):
        locate(setting)


def test_a_home_is_found(
    write_table: WriteTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write_table(cpu_header(), entry("8q1s1k", UNTUNED), name="one.yaml")
    monkeypatch.setenv("HOME", str(tmp_path))
    tables, problems = load_tables(f"~/{one.name}{os.pathsep}~nobody-of-this-name/tables")
    assert [loaded.path for loaded in tables] == [one]
    assert len(problems) == 1
    assert "~nobody-of-this-name/tables" in problems[0]


def test_nothing_in_a_folder_can_hang_a_start(write_table: WriteTable, tmp_path: Path) -> None:
    good = write_table(cpu_header(), entry("8q1s1k", UNTUNED), name="good.yaml")
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(2**25 + 1)
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )
    (tmp_path / "bomb.yaml").write_text(bomb)
    tables, problems = load_tables(f"{tmp_path}{os.pathsep}{tmp_path / 'fifo.yaml'}")
    assert [loaded.path for loaded in tables] == [good]
    for name, says in (
        ("bomb.yaml:2", "a table has no references"),
        ("dangling.yaml", "does not exist"),
        ("fifo.yaml", "is a FIFO"),
        ("large.yaml", "33554433 bytes"),
        ("loop.yaml", "Too many levels of symbolic links"),
        ("zero.yaml", "is a device"),
        ("fifo.yaml", "is a FIFO"),
    ):
        problem = problems.pop(0)
        assert name in problem
        assert says in problem
    assert problems == []


def test_a_folder_that_cannot_be_read_costs_what_is_in_it(
    write_table: WriteTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = write_table(cpu_header(), entry("8q1s1k", UNTUNED), name="good.yaml")
    closed = tmp_path / "closed"
    closed.mkdir()
    scandir = os.scandir

    def refuse(path: Path) -> Any:
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    tables, problems = load_tables(str(tmp_path))
    assert [loaded.path for loaded in tables] == [good]
    assert problems == [f"{closed} cannot be read: Permission denied"]


def test_a_linked_folder_is_searched_once_and_a_loop_of_links_ends(
    write_table: WriteTable, tmp_path: Path
) -> None:
    one = write_table(cpu_header(), entry("8q1s1k", UNTUNED), name="one.yaml")
    real = tmp_path / "elsewhere"
    tables = tmp_path / "tables"
    for folder in (real, tables / "inner"):
        folder.mkdir(parents=True)
    one.rename(real / "one.yaml")
    (tables / "again").symlink_to(real)
    (tables / "current").symlink_to(real)
    (tables / "inner" / "up").symlink_to(tables)
    (tables / "inner" / "round").symlink_to("round")
    found, problems = locate(str(tables))
    assert len(found) == 1
    assert found[0].samefile(real / "one.yaml")
    assert problems == []


def test_a_folder_is_searched_within_bounds(
    write_table: WriteTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = write_table(cpu_header(), entry("8q1s1k", UNTUNED), name="t0.yaml").read_text()
    for number in range(1, 5):
        (tmp_path / f"t{number}.yaml").write_text(text)
    deep = tmp_path.joinpath(*"abcdefghij")
    deep.mkdir(parents=True)
    tables, problems = load_tables(str(tmp_path))
    assert len(tables) == 5
    assert len(problems) == 1
    assert "more than 8 folders deep" in problems[0]
    monkeypatch.setattr(folders, "MOST_TABLES", 3)
    assert len(locate(str(tmp_path))[0]) == 3
    monkeypatch.setattr(folders, "MOST_SEEN", 2)
    found, left_out = locate(str(tmp_path))
    assert len(found) <= 2
    assert "after 2 files the search ends" in left_out[0]


def test_tables_fill_an_engine_only_so_far(
    write_table: WriteTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write_table(cpu_header(), entry("8q1s1k", UNTUNED), name="one.yaml")
    for name in ("three.yaml", "two.yaml"):
        (tmp_path / name).write_text(one.read_text())
    monkeypatch.setattr(runtime_tables, "MOST_BYTES", 2 * one.stat().st_size)
    tables, problems = load_tables(str(tmp_path))
    assert [loaded.path.name for loaded in tables] == ["one.yaml", "three.yaml"]
    assert len(problems) == 1
    assert problems[0].startswith(f"{tmp_path / 'two.yaml'}: the tables before it fill")


def test_the_shipped_tables_are_found_in_a_checkout() -> None:
    assert runtime_tables._bundled() == Path(__file__).parents[2] / "tuned_configs"


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
    bad = write_table(cpu_header(backend, mode="eager"), entry("8q1s1k", UNTUNED), name="bad.yaml")
    bad.write_text(bad.read_text().replace("plan: default", f"plan: {{{plan}}}"))
    tables, problems = load_tables(str(tmp_path))
    assert [loaded.path for loaded in tables] == [good]
    assert len(problems) == 1
    assert problems[0].startswith(f"{bad}:")
    assert says in problems[0]


def test_a_table_of_a_backend_that_is_not_known_costs_only_itself(
    write_table: WriteTable, tmp_path: Path
) -> None:
    good = write_table(cpu_header(), entry("8q1s1k", UNTUNED), name="good.yaml")
    newer = tmp_path / "newer.yaml"
    newer.write_text(good.read_text().replace("TRITON_MLA", "QUANTUM_MLA"))
    tables, problems = load_tables(str(tmp_path))
    assert [loaded.path for loaded in tables] == [good]
    assert "backend 'QUANTUM_MLA' is not known here; valid: TORCH_MLA, TRITON_MLA" in problems[0]


def test_every_shipped_table_is_within_bounds() -> None:
    tables, problems = load_tables("bundled")
    assert problems == []
    assert len(tables) == 31
