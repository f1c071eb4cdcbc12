# ruff: noqa: ARG001, ARG002
"""A decode backend with splits that lives in this file alone, from its listing to its engine."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fake_device import ENVIRONMENT, GIB, FakeBench
from mla_tune.cli.backends import backends
from mla_tune.environment import Environment
from mla_tune.errors import InputError
from mla_tune.plan.blocks import BlockSizes
from mla_tune.plan.bounds import Numbers
from mla_tune.plan.plan import Plan
from mla_tune.registry import BACKENDS
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, MlaDimensions
from mla_tune.shapes.file import load_shapes
from mla_tune.table import Header, Table
from mla_tune.table.matching import EngineFacts
from mla_tune.tuning.api import SilentReporter
from mla_tune.tuning.campaign import Campaign
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.planner import Planner
from mla_tune.tuning.tuner import Settings
from mla_tune.vllm import compat
from mla_tune.vllm.backend import DENSE_BOUNDS, EngineSetting, FrozenSplits, Splits, VllmBackend
from mla_tune.vllm.flags import vllm_args
from mla_tune.vllm.plugin import resolve
from mla_tune.vllm.plugin.carry_over import splits_carry_over
from mla_tune.vllm.session.rules import SessionRules

GPU = replace(ENVIRONMENT, compute_capability="9.0", software={"vllm": "0.33.0"})
SHAPES = """
model: {num_q_heads: 2, kv_lora_rank: 32}
batch_specs: [8q1s1k]
backends: [madeup_mla]
"""
BLOCK_TOO_SMALL = SHAPES + "engine: {block_size: 16}\n"


class MadeUpSplits:
    """Splits that the impl has as an attribute, two by default."""

    def default(self, shapes: Sequence[BatchShape]) -> int:
        return 2

    def values(self, shapes: Sequence[BatchShape]) -> tuple[int, ...]:
        return (1, 2, 4, 8)

    def expected(self, value: int, decode_tokens: int) -> int:
        return value

    def admits(self, value: int, decode_tokens: int) -> bool:
        return value * decode_tokens <= 32

    def set(self, value: int) -> AbstractContextManager[None]:
        return nullcontext()

    def stamp(self, metadata: Any, value: int) -> None:
        pass

    def observe(self) -> AbstractContextManager[list[int]]:
        return nullcontext([])


def _knob(setup: Setup, impl: Any, builder: Any) -> MadeUpSplits:
    return MadeUpSplits()


def _partial_bytes(setup: Setup, shape: BatchShape) -> int:
    return GIB


def _carry_over(frozen: FrozenSplits) -> bool:
    return frozen.max_model_len >= frozen.measured_max_model_len


class TunedMadeUpBackend:
    """Stands for the class that vLLM would find."""


MADE_UP = VllmBackend(
    name="MADE_UP_MLA",
    aliases=("madeup_mla",),
    module="made_up_mla",
    majors=(9,),
    blocks=BlockSizes((32,), multiples=True),
    bounds={**DENSE_BOUNDS, "num_kv_splits": Numbers((range(1, 32 + 1),))},
    settings={"num_kv_splits": EngineSetting("MADE_UP_SPLITS={}", is_variable=True)},
    splits=Splits(knob=_knob, partial_bytes=_partial_bytes, carry_over=_carry_over),
    plugin_class=f"{__name__}.TunedMadeUpBackend",
)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pretend that a vLLM with its file is installed."""
    monkeypatch.setattr(compat, "release", lambda: (0, 33, 0))
    monkeypatch.setattr(compat, "backend_source", Path)
    with BACKENDS.registered(MADE_UP):
        yield


def planned(path: Path, text: str = SHAPES) -> tuple[list[TableJob], list[str]]:
    """The table jobs for a shapes file, and what was skipped."""
    (path / "shapes.yaml").write_text(text)
    skipped: list[str] = []
    shapes = load_shapes(path / "shapes.yaml")
    planner = Planner(GPU, "cuda", 64 * GIB, shapes, path / "tables", skipped.append)
    return planner.jobs([]), skipped


def tuned(path: Path) -> Path:
    """The table of a run on the fake bench, where eight splits are the fastest."""
    default, best = Plan(num_kv_splits=2), Plan(num_kv_splits=8)
    bench = FakeBench({default: 100.0, Plan(num_kv_splits=4): 80.0, best: 50.0}, environment=GPU)
    jobs, _ = planned(path)
    Campaign(bench, path / "study", Settings(confirmation_rounds=16), SilentReporter()).run(jobs)
    return jobs[0].path


def engine(max_model_len: int) -> EngineFacts:
    return EngineFacts(
        backend="MADE_UP_MLA",
        device_name=GPU.device_name,
        compute_capability=GPU.compute_capability,
        sm_count=GPU.sm_count,
        model=(("num_q_heads", 2),),
        kv_cache_dtype="auto",
        quantization="none",
        block_size=32,
        vllm="0.33.0",
        max_model_len=max_model_len,
        max_cudagraph_capture_size=512,
        packages=(),
    )


def test_it_is_listed_with_its_knobs(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(device: str) -> Environment:
        del device
        return GPU

    monkeypatch.setattr("mla_tune.tuning.device_bench.found_environment", found)
    shown = CliRunner().invoke(backends).output
    assert "MADE_UP_MLA: runs here\n" in shown
    knobs = shown.partition("MADE_UP_MLA")[2].splitlines()[1]
    assert knobs == "  knobs: reorder_batch_threshold, num_kv_splits, prefill_backend"


def test_a_shapes_file_that_lists_it_becomes_a_table_job(tmp_path: Path) -> None:
    (job,), skipped = planned(tmp_path)
    assert skipped == []
    assert job.setup.backend == "MADE_UP_MLA"
    assert job.header.engine.block_size == 32
    assert job.path.name.startswith("MADE_UP_MLA-Fake_Device-heads_2-")


def test_a_block_size_that_it_does_not_take_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to tune"):
        planned(tmp_path, BLOCK_TOO_SMALL)


def test_its_memory_counts(tmp_path: Path) -> None:
    (job,), _ = planned(tmp_path)
    without = replace(MADE_UP, splits=None).estimate_bytes(job.setup, [BatchShape.parse("8q1s1k")])
    assert MADE_UP.estimate_bytes(job.setup, [BatchShape.parse("8q1s1k")]) == without + GIB


def test_a_session_s_rules_are_those_of_its_knob() -> None:
    setup = Setup("MADE_UP_MLA", MlaDimensions(2))
    knobs = MADE_UP.kernel_knobs(setup, None, None)
    rules = SessionRules("eager", 1, False, True, (), knobs)
    (default, *others) = rules.plan_space([BatchShape.parse("8q1s1k")]).plans
    assert default == Plan(num_kv_splits=2)
    assert others == [Plan(num_kv_splits=1), Plan(num_kv_splits=4)]


def test_it_is_tuned_and_its_table_read_back_with_its_bounds(tmp_path: Path) -> None:
    path = tuned(tmp_path)
    assert Table.load(path).lookup(batch=8, kv_len=1024).plan == Plan(num_kv_splits=8)
    beyond = path.with_name("beyond.yaml")
    beyond.write_text(path.read_text().replace("num_kv_splits: 8", "num_kv_splits: 33"))
    with pytest.raises(InputError, match="MADE_UP_MLA cannot have num_kv_splits 33") as caught:
        Table.load(beyond)
    assert "1 to 32" in str(caught.value)


def test_its_splits_are_spelled_for_an_engine(tmp_path: Path) -> None:
    (args,) = vllm_args([tuned(tmp_path)])
    assert args.flags == ("--attention-backend MADE_UP_MLA",)
    assert args.environment == ("MADE_UP_SPLITS=8",)


def test_the_plugin_finds_its_class_and_asks_its_rule() -> None:
    assert "MADE_UP_MLA" in resolve.tuned_backends()
    assert resolve.MADE_UP_MLA is TunedMadeUpBackend
    header = Header.of(GPU, "MADE_UP_MLA", MlaDimensions(2), "auto", "graph", 4096)
    assert splits_carry_over(8, header, engine(max_model_len=4096))
    assert not splits_carry_over(8, header, engine(max_model_len=2048))


def test_a_file_beside_the_others_is_found(tmp_path: Path) -> None:
    """In a process of its own, whose package of backends has one more folder."""
    (tmp_path / "quantum_mla.py").write_text(
        "from mla_tune.plan.blocks import BlockSizes\n"
        "from mla_tune.vllm.backend import VllmBackend\n"
        "BACKEND = VllmBackend(name='QUANTUM_MLA', aliases=('quantum',), module='quantum_mla',\n"
        "    blocks=BlockSizes((64,)))\n"
    )
    program = (
        f"import mla_tune.vllm.backends as b; b.__path__.append({str(tmp_path)!r})\n"
        "from mla_tune.registry import get_backend; print(get_backend('quantum').name)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "QUANTUM_MLA", done.stderr
