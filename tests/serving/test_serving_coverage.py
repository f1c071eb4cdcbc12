import os
import subprocess
import sys
from pathlib import Path

import pytest

from mla_tune.environment import Environment, installed_versions
from mla_tune.plan.plan import Plan
from mla_tune.serving.coverage import best_coverage, parts_of
from mla_tune.serving.engine import ServedEngine
from mla_tune.table import Header
from mla_tune.table.loading import LoadedTable, load_tables
from served_engines import engine
from tabled_engine import WriteTable, entry


def header_for(served: ServedEngine, backend: str = "TRITON_MLA", **changes: object) -> Header:
    device, triton = served.device, installed_versions("triton")
    environment = Environment(
        device.name,
        device.compute_capability,
        device.sm_count,
        80.0,
        {"vllm": served.vllm, **triton},
        {},
    )
    told = {"mode": "graph", "max_model_len": served.max_model_len, **changes}
    return Header.of(environment, backend, served.model, "auto", **told)


def loaded(*paths: Path) -> list[LoadedTable]:
    return load_tables(":".join(map(str, paths)))[0]


def test_captured_sizes_with_and_without_an_entry(write_table: WriteTable) -> None:
    served = engine(kv_cache_tokens=4096)
    shapes = ["q1s4k", "2q1s2k", "8q1s512"]
    path = write_table(
        header_for(served), *(entry(shape, Plan(num_kv_splits=4)) for shape in shapes)
    )
    found = best_coverage(served, loaded(path))
    assert found.table == path
    assert (found.answered, found.open) == ((1, 2, 8), (4, 16))
    assert str(found) == "3 of 5 captured sizes"


def test_an_entry_that_ends_early_answers_nothing(write_table: WriteTable) -> None:
    served = engine()  # with room for 131072 tokens of each of 8 requests
    plan = entry("8q1s512", Plan(num_kv_splits=4)).model_copy(update={"holds_to": 1024})
    path = write_table(header_for(served), plan)
    assert best_coverage(served, loaded(path)).answered == ()
    assert parts_of(served, ["8q1s512"]) == {8}


@pytest.mark.parametrize(
    "changes",
    [
        {"vllm": "0.34.0"},
        {"backend": "FLASHMLA"},
        {"kv_cache_dtype": "fp8"},
        {"decode_graphs": False},
    ],
)
def test_a_table_for_another_engine_is_none(
    changes: dict[str, object], write_table: WriteTable
) -> None:
    path = write_table(header_for(engine()), entry("q1s4k", Plan(num_kv_splits=4)))
    found = best_coverage(engine(**changes), loaded(path))
    assert found.table is None
    assert not found.is_complete


def test_of_several_the_one_that_answers_most(write_table: WriteTable) -> None:
    served = engine(kv_cache_tokens=4096)
    plans = [entry(shape, Plan(num_kv_splits=4)) for shape in ("q1s4k", "2q1s2k")]
    few = write_table(header_for(served), *plans[:1], name="a.yaml")
    many = write_table(header_for(served), *plans, name="b.yaml")
    assert best_coverage(served, loaded(few, many)).table == many


def test_draft_tokens_are_looked_up_by_requests() -> None:
    served = engine(draft_tokens=3, capture_sizes=(1, 2, 4, 8))
    assert parts_of(served, ["2q4s1k"]) == {8}
    assert parts_of(served, ["q4s{1k,4k}"]) == {1, 2, 4}


def test_the_batches_of_an_eager_engine(write_table: WriteTable) -> None:
    served = engine(decode_graphs=False, max_num_seqs=2, max_model_len=256)
    header = header_for(served, mode="eager")
    path = write_table(header, entry("q1s256", Plan(num_kv_splits=2)))
    found = best_coverage(served, loaded(path))
    assert (found.answered, found.open) == (("q1s256",), ("2q1s256",))
    assert str(found) == "1 of 2 batches"


def test_splits_measured_at_another_length_are_tuned_anew(write_table: WriteTable) -> None:
    served = engine(kv_cache_tokens=4096)
    plans = [entry("q1s4k", Plan(num_kv_splits=4)), entry("2q1s2k", Plan())]
    path = write_table(header_for(served, max_model_len=65536), *plans)
    assert best_coverage(served, loaded(path)).answered == (2,)


def test_finding_out_imports_neither_torch_nor_vllm(write_table: WriteTable) -> None:
    path = write_table(header_for(engine()), entry("q1s4k", Plan(num_kv_splits=4)))
    program = f"""
import sys
from served_engines import engine
from mla_tune.serving.coverage import best_coverage
from mla_tune.serving.prepare import prepared
from mla_tune.table.loading import load_tables
assert best_coverage(engine(), load_tables({str(path)!r})[0]).answered == (1,)
print("loaded:", [name for name in ("torch", "vllm", "optuna", "scipy") if name in sys.modules])
"""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "loaded: []\n", done.stderr
