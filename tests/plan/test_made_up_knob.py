"""A knob that is declared in this file alone, on its way from shapes to an engine's choice.

Beside its declaration it has what `docs/adding-a-backend.md` says: the backend that has it, with
its bounds and how a session sets it, and what the plugin's builder sets.
"""

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fake_device import ENVIRONMENT, GIB, FakeBench
from mla_tune.errors import InputError
from mla_tune.plan.blocks import BlockSizes
from mla_tune.plan.bounds import Numbers
from mla_tune.plan.failure import FailureKind, PlanFailure
from mla_tune.plan.knob import KNOBS, Knob
from mla_tune.plan.plan import Plan
from mla_tune.registry import BACKENDS
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape
from mla_tune.shapes.file import load_shapes
from mla_tune.table import Table, TableFile
from mla_tune.table.loading import LoadedTable
from mla_tune.table.matching import EngineFacts
from mla_tune.tuning.api import SilentReporter
from mla_tune.tuning.campaign import Campaign
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.planner import Planner
from mla_tune.tuning.tuner import Settings
from mla_tune.vllm import compat
from mla_tune.vllm.backend import DENSE_BOUNDS, EngineSetting, VllmBackend
from mla_tune.vllm.flags import vllm_args
from mla_tune.vllm.plugin.deployment import Deployment
from mla_tune.vllm.session.applied import AppliedCheck
from mla_tune.vllm.session.rules import Route, SessionRules

TILE = Knob("tile_tokens", int, "KV tokens of one step of the kernel's loop", tie_rank=9)

GPU = replace(ENVIRONMENT, compute_capability="9.0", software={"vllm": "0.33.0"})
SHAPES = """
model: {num_q_heads: 2, kv_lora_rank: 32}
batch_specs: [8q1s1k, 32q1s1k]
backends: [BLOCKED_MLA]
"""


class TileTokens:
    """The launch constant of a made-up impl, 64 by default."""

    def __init__(self, impl: Any) -> None:
        self._impl = impl

    def default(self, shapes: Sequence[BatchShape]) -> int:
        del shapes
        return 64

    def values(self, shapes: Sequence[BatchShape]) -> tuple[int, ...]:
        longest = max(shape.max_kv_len for shape in shapes)
        return tuple(value for value in (16, 32, 128, 2048) if value <= longest)

    def expected(self, value: int, decode_tokens: int) -> int:
        del decode_tokens
        return value

    def admits(self, value: int, decode_tokens: int) -> bool:
        return value * decode_tokens <= 16 * 32

    @contextmanager
    def set(self, value: int) -> Iterator[None]:
        before, self._impl.tile_tokens = self._impl.tile_tokens, value
        yield
        self._impl.tile_tokens = before

    def stamp(self, metadata: Any, value: int) -> None:
        metadata.tile_tokens = value

    @contextmanager
    def observe(self) -> Iterator[list[int]]:
        self._impl.launched = []
        yield self._impl.launched


def _tile_tokens(setup: Setup, impl: Any, builder: Any) -> TileTokens:
    del setup, builder
    return TileTokens(impl)


BLOCKED = VllmBackend(
    name="BLOCKED_MLA",
    aliases=("blocked_mla",),
    module="blocked_mla",
    majors=(9,),
    blocks=BlockSizes((32,)),
    bounds={**DENSE_BOUNDS, "tile_tokens": Numbers((range(16, 256 + 1),))},
    other_knobs={"tile_tokens": _tile_tokens},
)


@pytest.fixture(autouse=True)
def _declared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pretend that a vLLM with the backend's file is installed."""
    monkeypatch.setattr(compat, "release", lambda: (0, 33, 0))
    monkeypatch.setattr(compat, "backend_source", Path)
    monkeypatch.setitem(KNOBS, "tile_tokens", TILE)
    with BACKENDS.registered(BLOCKED):
        yield


def rules_of(job: TableJob) -> SessionRules:
    """As a session of the job makes them, for an impl that launches as it is told."""
    impl = SimpleNamespace(tile_tokens=64)
    knobs = BLOCKED.kernel_knobs(job.setup, impl, None)
    return SessionRules(job.setup.mode, 1, False, True, (), knobs)


def jobs(folder: Path) -> list[TableJob]:
    folder.mkdir(exist_ok=True)
    (folder / "shapes.yaml").write_text(SHAPES)
    shapes = load_shapes(folder / "shapes.yaml")
    return Planner(GPU, "cuda", 64 * GIB, shapes, folder / "tables", lambda _what: None).jobs([])


def bench_of(job: TableJob) -> FakeBench:
    """A bench on which a loop of 32 tokens is the fastest; the plans are a session's."""
    space = rules_of(job).plan_space([BatchShape.parse("8q1s1k")])
    assert space.default == Plan(tile_tokens=64)
    return FakeBench(
        {plan: 50.0 + abs(plan["tile_tokens"] - 32) for plan in space.plans}, environment=GPU
    )


def tuned(folder: Path) -> tuple[TableJob, FakeBench]:
    (job,) = jobs(folder)
    bench = bench_of(job)
    settings = Settings(confirmation_rounds=16)
    Campaign(bench, folder / "study", settings, SilentReporter()).run([job])
    return job, bench


def deployment(path: Path, knobs: set[str]) -> Deployment:
    """What the plugin's builders share in an engine that the table at ``path`` is true for."""
    header = Table.load(path).header
    facts = EngineFacts(
        backend="BLOCKED_MLA",
        device_name=GPU.device_name,
        compute_capability=GPU.compute_capability,
        sm_count=GPU.sm_count,
        model=tuple(header.model.items()),
        kv_cache_dtype="auto",
        quantization="none",
        block_size=32,
        vllm="0.33.0",
        max_model_len=header.engine.max_model_len,
        max_cudagraph_capture_size=512,
        packages=(),
    )
    loaded = LoadedTable(path, Table.load(path))
    return Deployment(facts, knobs, {"graph": loaded, "eager": loaded}, ((8, 1), (32, 1)))


def test_a_session_folds_and_fits_its_values(tmp_path: Path) -> None:
    (job,) = jobs(tmp_path)
    rules = rules_of(job)
    plans = rules.plan_space([BatchShape.parse("8q1s1k")]).plans
    assert plans == tuple(Plan(tile_tokens=value) for value in (64, 16, 32))
    # A prefill runs no decode kernel.
    assert rules.plan_space([BatchShape.parse("q64s1k")]).plans == (Plan(),)


def test_a_session_sets_it_and_sees_it_at_the_launch(tmp_path: Path) -> None:
    (job,) = jobs(tmp_path)
    impl = SimpleNamespace(tile_tokens=64)
    rules = SessionRules("eager", 1, False, True, (), BLOCKED.kernel_knobs(job.setup, impl, None))
    parts: Any = SimpleNamespace(
        rules=rules, device=SimpleNamespace(type="cpu"), impl=impl, launcher=None
    )
    check = AppliedCheck("BLOCKED_MLA", parts, Plan(tile_tokens=32), Route(8, 8, 0, 0))
    metadata = SimpleNamespace(num_decodes=8, num_decode_tokens=8)

    def forward() -> None:
        impl.launched.append(impl.tile_tokens)

    ((_, knob, value),) = rules.kernel_settings(check.plan)
    with knob.set(value):
        check.run(metadata, forward)
    assert impl.tile_tokens == 64
    with pytest.raises(PlanFailure, match=r"tile_tokens \[64\], expected \[32\]") as failure:
        check.run(metadata, forward)
    assert failure.value.kind is FailureKind.NOT_APPLIED


def test_it_is_tuned_and_its_table_says_so(tmp_path: Path) -> None:
    job, _ = tuned(tmp_path)
    assert "plan: {tile_tokens: 32}" in job.path.read_text()
    entry = TableFile.load(job.path).entries[0]
    assert (entry.plan, entry.default_plan) == (Plan(tile_tokens=32), Plan(tile_tokens=64))
    found = Table.load(job.path).lookup(batch=8, kv_len=1024)
    assert found.plan == Plan(tile_tokens=32)


def test_a_run_again_measures_nothing(tmp_path: Path) -> None:
    job, _ = tuned(tmp_path)
    written = job.path.read_bytes()
    job.path.unlink()
    _, bench = tuned(tmp_path)
    assert bench.raced == []
    assert job.path.read_bytes() == written


def test_it_crosses_to_a_worker() -> None:
    plan = Plan(tile_tokens=32, num_kv_splits=2)
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert list(plan) == ["num_kv_splits", "tile_tokens"]


def test_a_value_out_of_its_bounds_is_refused_with_its_place(tmp_path: Path) -> None:
    job, _ = tuned(tmp_path)
    job.path.write_text(job.path.read_text().replace("{tile_tokens: 32}", "{tile_tokens: 4096}"))
    with pytest.raises(InputError, match="BLOCKED_MLA cannot have tile_tokens 4096") as caught:
        Table.load(job.path)
    assert "16 to 256" in str(caught.value)


def test_a_backend_without_it_takes_no_table_with_it(tmp_path: Path) -> None:
    job, _ = tuned(tmp_path)
    other = job.path.read_text().replace("backend: BLOCKED_MLA", "backend: TRITON_MLA")
    job.path.write_text(other)
    with pytest.raises(InputError, match="TRITON_MLA cannot have tile_tokens"):
        Table.load(job.path)


def test_of_tied_plans_its_smallest_value_is_taken_after_the_other_knobs() -> None:
    plans = [
        Plan(num_kv_splits=2, tile_tokens=16),
        Plan(num_kv_splits=1, tile_tokens=64),
        Plan(num_kv_splits=1, tile_tokens=32),
    ]
    assert min(plans, key=lambda plan: plan.tie_key) == plans[2]


@pytest.fixture
def _unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made-up jobs have uniform batches alone."""
    monkeypatch.setenv("MLA_TUNE_UNGUARDED", "1")


@pytest.mark.usefixtures("_unguarded")
@pytest.mark.parametrize("mode", ["captured", "eager"])
def test_an_engine_s_choice_holds_it(tmp_path: Path, mode: str) -> None:
    job, _ = tuned(tmp_path)
    deployed = deployment(job.path, {"reorder_batch_threshold", "tile_tokens"})
    assert deployed.lookups is not None
    choice = (
        deployed.lookups.steps.uniform(8, 1, 1024) if mode == "eager" else deployed.planned[8, 1]
    )
    assert (choice.outcome, choice.plan) == ("hit", Plan(tile_tokens=32))
    assert not choice.checked
    assert deployed.counts.fallbacks == 0


@pytest.mark.usefixtures("_unguarded")
def test_a_builder_that_does_not_set_it_says_so_once_and_serves_untuned(
    tmp_path: Path, messages: list[str]
) -> None:
    job, _ = tuned(tmp_path)
    deployed = deployment(job.path, {"reorder_batch_threshold", "num_kv_splits"})
    for choice in deployed.planned.values():
        assert (choice.outcome, choice.plan) == ("miss", Plan())
        assert "tile_tokens=32 cannot be applied" in choice.reason
    assert deployed.counts.fallbacks == 2
    assert [
        line for line in messages if "BLOCKED_MLA" in line and "tile_tokens" in line
    ] == messages
    assert len(messages) == 1


def test_without_a_flag_the_report_says_that_there_is_none(tmp_path: Path) -> None:
    job, _ = tuned(tmp_path)
    (args,) = vllm_args([job.path])
    assert args.flags == ("--attention-backend BLOCKED_MLA",)
    assert args.left_over == ("tile_tokens of BLOCKED_MLA: no release has a flag for it",)


def test_a_flag_of_all_backends_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, _ = tuned(tmp_path)
    monkeypatch.setitem(KNOBS, "tile_tokens", replace(TILE, vllm_flag="--tile-tokens={}"))
    (args,) = vllm_args([job.path])
    assert args.flags == ("--attention-backend BLOCKED_MLA", "--tile-tokens=32")
    assert args.left_over == ()


def test_a_spelling_of_the_backend_comes_first(tmp_path: Path) -> None:
    job, _ = tuned(tmp_path)
    spelling = {"tile_tokens": EngineSetting("BLOCKED_N={}", is_variable=True)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKENDS._backends, "BLOCKED_MLA", replace(BLOCKED, settings=spelling))
        (args,) = vllm_args([job.path])
    assert args.environment == ("BLOCKED_N=32",)
