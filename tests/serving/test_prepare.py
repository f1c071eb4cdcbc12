import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_serving_coverage import header_for

from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.plan.plan import Plan
from mla_tune.serving import prepare, tabled
from mla_tune.serving.cache import Cache
from mla_tune.serving.engine import ServedEngine
from mla_tune.serving.prepare import prepared
from mla_tune.serving.prepare_options import PrepareOptions
from mla_tune.serving.tune_process import TIME_OVER
from mla_tune.serving.tune_request import TuneAnswer, TuneRequest
from mla_tune.serving.vllm_command import VllmCommand
from mla_tune.shapes import BatchShape, RequestGroup
from mla_tune.table import merge
from mla_tune.table.naming import table_path
from served_engines import engine
from tabled_engine import entry

COMMAND = VllmCommand.of(["vllm", "serve", "model"])
SERVED = engine(kv_cache_tokens=4096, capture_sizes=(1, 2, 4))


class World:
    """What prepare asks of other processes: vLLM, and a tuner that decides some sizes at a time."""

    def __init__(self, served: ServedEngine) -> None:
        self.served = served
        self.asked = 0
        self.requests: list[TuneRequest] = []
        self.decides = 99
        self.answer = TuneAnswer()

    def ask(self, *_: Any) -> list[ServedEngine]:
        self.asked += 1
        return [self.served]

    def tune(self, request: TuneRequest, *_: Any) -> TuneAnswer:
        self.requests.append(request)
        header = header_for(self.served)
        for size in request.shapes["graph"]["capture_sizes"][: self.decides]:
            shape = BatchShape.of([RequestGroup(1, 4096 // size, size)])
            made = entry(str(shape), Plan(num_kv_splits=2))
            merge(table_path(request.out, header), header, [made])
        return self.answer


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(SERVED)
    monkeypatch.setattr(prepare, "ask_vllm", made.ask)
    monkeypatch.setattr(tabled, "tune_until", made.tune)
    return made


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def options(tmp_path: Path, said: list[str]) -> PrepareOptions:
    return PrepareOptions(
        COMMAND, Cache(tmp_path / "cache"), time.monotonic() + 600, say=said.append, environ={}
    )


def test_what_is_missing_is_tuned_once(
    world: World, options: PrepareOptions, said: list[str]
) -> None:
    first = prepared(options)
    assert world.requests[0].shapes["graph"]["capture_sizes"] == [1, 4, 2]
    assert first.tables is not None
    assert Path(first.tables).is_file()
    assert not first.problem
    assert world.requests[0].devices == "0,1,2,3,4,5,6,7"
    assert said[-1].startswith("3 of 3 captured sizes of TRITON_MLA have an entry in")

    assert prepared(options) == first
    assert (world.asked, len(world.requests)) == (1, 1)
    assert "the same command as before: vLLM is not asked again" in said


def test_launches_are_searched_where_there_is_time_for_all(
    world: World, options: PrepareOptions, tmp_path: Path
) -> None:
    prepared(options)
    short = replace(options, deadline_s=time.monotonic() + 90, cache=Cache(tmp_path / "other"))
    prepared(short)
    assert [request.launches for request in world.requests] == [None, "none"]


def test_sizes_that_hold_all_sequences_are_one(
    world: World, options: PrepareOptions, said: list[str]
) -> None:
    world.served = replace(SERVED, capture_sizes=(1, 2, 4, 8), max_num_seqs=3)
    prepared(options)
    assert world.requests[0].shapes["graph"]["capture_sizes"] == [1, 3, 2]
    assert any(line.startswith("tuning 3 batch sizes of TRITON_MLA") for line in said)


def test_the_next_start_goes_on(world: World, options: PrepareOptions, said: list[str]) -> None:
    world.decides, world.answer = 2, TuneAnswer(problem=TIME_OVER)
    assert not prepared(options).problem
    assert "the time is over; the next start goes on from here" in said
    prepared(options)
    assert world.requests[1].shapes["graph"]["capture_sizes"] == [2]


def test_what_cannot_be_tuned_is_not_tried_at_each_start(
    world: World, options: PrepareOptions
) -> None:
    world.decides, world.answer = 2, TuneAnswer(("2q1s{1k,4k}",), "it crashes")
    assert prepared(options).problem == "it crashes"
    prepared(options)
    assert len(world.requests) == 1


def test_entries_that_end_early_are_not_tuned_again(world: World, options: PrepareOptions) -> None:
    """As where the GPU's free memory ends what can be measured."""
    world.served = replace(SERVED, kv_cache_tokens=2**30, max_model_len=2**18)
    first = prepared(options)
    assert first.tables is not None
    prepared(options)
    assert len(world.requests) == 1


@pytest.mark.parametrize("decided", [1, 3])
def test_a_shipped_table_of_some_sizes_leaves_all_to_the_own(
    decided: int,
    world: World,
    options: PrepareOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One table acts: with the open size alone in it, the own would take its plans from two."""
    header = header_for(SERVED)
    shipped = table_path(tmp_path, header)
    merge(shipped, header, [entry(shape, Plan(num_kv_splits=4)) for shape in ("q1s4k", "2q1s2k")])
    monkeypatch.setattr(tabled, "_shipped", lambda: [shipped])
    world.decides = decided
    found = prepared(options)
    assert world.requests[0].shapes["graph"]["capture_sizes"] == [1, 4, 2]
    assert (found.tables == str(shipped)) == (decided == 1)


def test_engines_that_differ_in_sizes_alone_share_tables(
    world: World, options: PrepareOptions
) -> None:
    prepared(options)
    world.served = replace(SERVED, capture_sizes=(1, 2, 4, 8))
    prepared(replace(options, command=COMMAND.with_options("--max-num-seqs", "8")))
    assert world.requests[1].shapes["graph"]["capture_sizes"] == [8]
    assert world.requests[0].out == world.requests[1].out


def test_a_table_of_the_users_own_is_left_to_act(
    world: World, options: PrepareOptions, tmp_path: Path
) -> None:
    own = tmp_path / "own.yaml"
    merge(own, header_for(SERVED), [entry("q1s4k", Plan(num_kv_splits=2))])
    found = prepared(replace(options, environ={"MLA_TUNE_TABLES": str(own)}))
    assert found.tables is None
    assert world.requests == []


@pytest.mark.usefixtures("world")
def test_tables_for_something_else_stay_in_the_variable(options: PrepareOptions) -> None:
    found = prepared(replace(options, environ={"MLA_TUNE_TABLES": "/nowhere"}))
    assert found.tables is not None
    assert found.tables.startswith("/nowhere:")


def test_without_time_nothing_is_started(world: World, options: PrepareOptions) -> None:
    with pytest.raises(EnvironmentFailure, match="no time was left to tune 3 batch sizes"):
        prepared(replace(options, deadline_s=time.monotonic() + 1))
    assert world.requests == []


def test_another_start_that_tunes_is_waited_for(
    world: World, options: PrepareOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabled, "LEAST_S", 0.0)
    prepared(replace(options, cache=Cache(options.cache.folder)))
    (slot,) = options.cache.slots()
    for table in slot.tables:
        table.unlink()
    soon = replace(options, deadline_s=0.5, clock=lambda: 0.0)
    with slot.alone(0), pytest.raises(EnvironmentFailure, match="another start was"):
        prepared(soon)
    assert len(world.requests) == 1


@pytest.mark.usefixtures("world")
def test_a_cache_that_cannot_be_written(options: PrepareOptions, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFailure, match=r"cache .* cannot be written: Not a directory"):
        prepared(replace(options, cache=Cache(tmp_path / "file" / "below")))


def test_tables_of_a_cache_that_cannot_be_written_act(
    world: World, options: PrepareOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.decides = 2
    prepared(options)

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mla_tune.serving.cache.Slot.alone", full)
    found = prepared(options)
    assert "No space left on device" in found.problem
    assert found.tables is not None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"backend": None}, "no backend to tune"),
        ({"refusal": "it is odd"}, "no table acts in this engine: it is odd"),
        ({"backend": "NEW_MLA"}, "NEW_MLA, which cannot be tuned"),
        ({"backend": "FLASH_ATTN_MLA", "decode_graphs": False}, "without CUDA graphs has no table"),
    ],
)
def test_an_engine_without_tables(
    changes: dict[str, Any], told: str, world: World, options: PrepareOptions
) -> None:
    world.served = replace(SERVED, **changes)
    with pytest.raises(InputError, match=told):
        prepared(options)


def test_a_backend_of_vllms_is_told_to_vllm(world: World, options: PrepareOptions) -> None:
    world.served = replace(SERVED, backend="FLASH_ATTN_MLA")
    found = prepared(replace(options, backend="triton_mla"))
    assert found.command.arguments[-2:] == ("--attention-backend", "TRITON_MLA")


def test_a_damaged_description_is_asked_for_again(
    world: World, options: PrepareOptions, make_key: Callable[[], str]
) -> None:
    prepared(options)
    options.cache.keep_description(make_key(), "{}")
    prepared(options)
    assert world.asked == 2


@pytest.fixture
def make_key(options: PrepareOptions) -> Callable[[], str]:
    return lambda: prepare.command_key(options.command, options.environ)
