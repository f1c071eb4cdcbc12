from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_serving_coverage import header_for

from mla_tune.errors import InputError
from mla_tune.plan.plan import Plan
from mla_tune.serving import pick, prepare, tabled
from mla_tune.serving.cache import Cache
from mla_tune.serving.compare_request import CompareAnswer, CompareRequest
from mla_tune.serving.engine import ServedEngine
from mla_tune.serving.engine_process import NothingToPick
from mla_tune.serving.prepare import prepared
from mla_tune.serving.prepare_options import PrepareOptions
from mla_tune.serving.start import prepared_or_untuned
from mla_tune.serving.tune_request import TuneAnswer, TuneRequest
from mla_tune.serving.vllm_command import VllmCommand
from mla_tune.shapes import BatchShape, RequestGroup
from mla_tune.table import Speedup, merge
from mla_tune.table.naming import table_path
from mla_tune.tuning.comparison import Comparison
from served_engines import engine
from tabled_engine import entry

COMMAND = VllmCommand.of(["vllm", "serve", "model"])
OWN = engine(kv_cache_tokens=4096, capture_sizes=(1, 2, 4), backend="FLASH_ATTN_MLA")
TRITON, FLASHMLA = replace(OWN, backend="TRITON_MLA"), replace(OWN, backend="FLASHMLA")


def beside(backend: str, median: float, error: float = 0.01, visits: int = 4) -> Comparison:
    speedup = Speedup(median=median, low=median - error, high=median + error)
    return Comparison(backend, (100.0, 100.0 / median), visits, speedup)


class World:
    """VLLM, a tuner that knows all sizes of the engines, and a comparison as it was scripted."""

    def __init__(self) -> None:
        self.engines = [OWN, TRITON, FLASHMLA]
        self.untunable: set[str] = set()
        self.tuned: list[TuneRequest] = []
        self.tuned_until_s: list[float] = []
        self.compared: list[CompareRequest] = []
        self.answer = CompareAnswer((beside("TRITON_MLA", 1.3), beside("FLASHMLA", 1.1)))

    def ask(self, *_: Any) -> list[ServedEngine]:
        return self.engines

    def tune(self, request: TuneRequest, deadline_s: float, _clock: object) -> TuneAnswer:
        self.tuned.append(request)
        self.tuned_until_s.append(deadline_s)
        if request.backend in self.untunable:
            return TuneAnswer(problem="it crashes")
        header = header_for(OWN, request.backend)
        for size in request.shapes["graph"]["capture_sizes"]:
            shape = BatchShape.of([RequestGroup(1, 4096 // size, size)])
            plan = Plan(num_kv_splits=2) if request.backend == "TRITON_MLA" else Plan()
            merge(table_path(request.out, header), header, [entry(str(shape), plan)])
        return TuneAnswer()

    def compare(self, request: CompareRequest, *_: Any) -> CompareAnswer:
        self.compared.append(request)
        return self.answer


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(prepare, "ask_vllm", made.ask)
    monkeypatch.setattr(tabled, "tune_until", made.tune)
    monkeypatch.setattr(pick, "compare_until", made.compare)
    monkeypatch.setattr(tabled, "_shipped", list)  # which would be read again and again
    return made


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def options(tmp_path: Path, said: list[str]) -> PrepareOptions:
    return PrepareOptions(
        COMMAND,
        Cache(tmp_path / "cache"),
        deadline_s=300.0,
        pick_backend=True,
        say=said.append,
        environ={},
        clock=lambda: 0.0,
    )


def test_the_fastest_is_started_with_its_table(
    world: World, options: PrepareOptions, said: list[str]
) -> None:
    found = prepared(options)
    assert found.command.arguments == ("model", "--attention-backend", "TRITON_MLA")
    assert found.tables is not None
    assert "TRITON_MLA" in Path(found.tables).name
    assert any(
        "TRITON_MLA beside FLASH_ATTN_MLA, vLLM's choice: 1.30× (1.29–1.31)" in line
        for line in said
    )
    (request,) = world.compared
    assert [each.backend for each in request.contenders] == [
        "FLASH_ATTN_MLA",
        "TRITON_MLA",
        "FLASHMLA",
    ]
    assert request.contenders[1].plans == {f"{n}q1": {"num_kv_splits": 2} for n in (1, 2, 4)}
    assert request.contenders[1].shapes["graph"]["capture_sizes"] == [1, 4, 2]


def test_the_second_start_decides_without_measuring(
    world: World, options: PrepareOptions, said: list[str]
) -> None:
    first = prepared(options)
    said.clear()
    assert prepared(options) == first
    assert (len(world.tuned), len(world.compared)) == (3, 1)
    assert any("1.30×" in line for line in said)


def test_tables_that_changed_are_compared_again(
    world: World, options: PrepareOptions, tmp_path: Path
) -> None:
    prepared(options)
    own = tmp_path / "own.yaml"
    merge(own, header_for(TRITON), [entry("q1s4k", Plan(num_kv_splits=4))])
    prepared(replace(options, environ={"MLA_TUNE_TABLES": str(own)}))
    assert world.compared[1].contenders[1].plans == {"1q1": {"num_kv_splits": 4}}


@pytest.mark.parametrize(
    "comparisons",
    [
        (beside("TRITON_MLA", 1.3, error=0.3),),  # the interval reaches below the gate
        (beside("TRITON_MLA", 1.01),),
        (Comparison("TRITON_MLA", (100.0, 50.0), 2, None),),
        (),
    ],
)
def test_vllms_choice_stays_where_nothing_is_proven(
    comparisons: tuple[Comparison, ...], world: World, options: PrepareOptions
) -> None:
    world.answer = CompareAnswer(comparisons)
    found = prepared(options)
    assert found.command == COMMAND
    assert found.tables is not None
    assert "FLASH_ATTN_MLA" in Path(found.tables).name


def test_a_comparison_that_time_ended_goes_on_with_the_next_start(
    world: World, options: PrepareOptions
) -> None:
    world.answer = CompareAnswer((Comparison("TRITON_MLA", (100.0, 50.0), 2, None),))
    prepared(options)
    prepared(options)
    assert len(world.compared) == 2


def test_a_comparison_that_fails_says_so(
    world: World, options: PrepareOptions, said: list[str]
) -> None:
    world.answer = CompareAnswer(problem="comparing was ended by SIGKILL")
    assert prepared(options).command == COMMAND
    assert "backends were not compared: comparing was ended by SIGKILL" in said


def test_without_time_nothing_is_compared(
    world: World, options: PrepareOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabled, "LEAST_S", 0.0)
    assert prepared(replace(options, deadline_s=5.0)).command == COMMAND
    assert (len(world.tuned), world.compared) == (3, [])


def test_each_has_its_share_of_the_time(world: World, options: PrepareOptions) -> None:
    prepared(options)
    # 90 of the 300 seconds are for comparing; what one leaves is for those after it.
    assert world.tuned_until_s == [70.0, 105.0, 210.0]


def test_vllms_choice_comes_first_where_there_is_little(
    world: World, options: PrepareOptions
) -> None:
    world.answer = CompareAnswer()
    prepared(replace(options, deadline_s=20.0))
    assert world.tuned_until_s[0] == 20.0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kv_cache_dtype": "fp8"}, "it would have another kv_cache_dtype"),
        ({"capture_sizes": (1, 2)}, "it would have another capture_sizes"),
        ({"decode_graphs": False}, "it would have another engine mode"),
    ],
)
def test_another_engine_is_no_contender(
    changes: dict[str, Any], told: str, world: World, options: PrepareOptions, said: list[str]
) -> None:
    world.engines = [OWN, replace(TRITON, **changes)]
    assert prepared(options).command == COMMAND
    assert f"TRITON_MLA is left out: {told}" in said
    assert world.compared == []


def test_one_that_cannot_be_tuned_is_left_out(
    world: World, options: PrepareOptions, said: list[str]
) -> None:
    world.untunable = {"TRITON_MLA"}
    world.answer = CompareAnswer((beside("FLASHMLA", 1.1),))
    assert prepared(options).command.arguments[-1] == "FLASHMLA"
    assert "TRITON_MLA is left out: it crashes" in said


def test_where_vllms_choice_cannot_be_tuned_it_starts_untuned(
    world: World, options: PrepareOptions
) -> None:
    world.engines = [replace(OWN, backend="NEW_MLA"), TRITON]
    with pytest.raises(InputError, match="cannot be tuned"):
        prepared(options)


def test_without_a_choice_nothing_starts(
    options: PrepareOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: Any) -> list[ServedEngine]:
        raise NothingToPick("the command chooses TRITON_MLA")

    monkeypatch.setattr(prepare, "ask_vllm", ask)
    with pytest.raises(NothingToPick) as error:
        prepared_or_untuned(COMMAND, lambda: options, print)
    assert error.value.exit_code == 2


def both(options: PrepareOptions) -> Callable[[], PrepareOptions]:
    return lambda: replace(options, backend="TRITON_MLA")


def test_one_backend_and_a_choice_exclude_each_other(options: PrepareOptions) -> None:
    with pytest.raises(NothingToPick, match="--backend and --pick-backend"):
        prepared_or_untuned(COMMAND, both(options), print)
