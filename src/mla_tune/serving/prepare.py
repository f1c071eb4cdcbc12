"""All before an engine's start: what it is, which tables it has, and tuning what is missing."""

__all__ = ["Preparation", "PrepareOptions", "prepared"]

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.registry import BACKENDS, canonical_name, get_backend
from mla_tune.serving.cache import Cache, Slot
from mla_tune.serving.command_key import command_key
from mla_tune.serving.coverage import Coverage, Part, best_coverage, parts_of
from mla_tune.serving.engine import ServedEngine
from mla_tune.serving.engine_process import ask_vllm
from mla_tune.serving.engine_shapes import engine_shapes, tuned_mode
from mla_tune.serving.lines import in_a_line
from mla_tune.serving.order import spread_first
from mla_tune.serving.tune_process import TIME_OVER, tune_until
from mla_tune.serving.tune_request import TuneRequest
from mla_tune.serving.vllm_command import VllmCommand
from mla_tune.table.loading import BUNDLED, LoadedTable, load_tables, locate

VARIABLE = "MLA_TUNE_TABLES"

LEAST_S = 10.0
"""With less time left than a start of the worker takes, none is started."""


@dataclass(frozen=True)
class PrepareOptions:
    """How an engine is prepared.

    Attributes:
        command: vLLM's.
        cache: where descriptions and tables are kept.
        deadline_s: of ``clock``: when tuning has to have ended.
        backend: tuned in place of the one that vLLM chooses.
        device: to tune on, as of ``--device``.
        processes: in how many processes a plan is raced before it is published.
        say: told how it goes, a line at a time.
        environ: the environment that vLLM is going to have.
    """

    command: VllmCommand
    cache: Cache
    deadline_s: float
    backend: str | None = None
    device: str = "auto"
    processes: int = 1
    say: Callable[[str], None] = print
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    clock: Callable[[], float] = time.monotonic

    @property
    def left_s(self) -> float:
        return self.deadline_s - self.clock()


@dataclass(frozen=True)
class Preparation:
    """What an engine starts with.

    Attributes:
        command: vLLM's, with what was chosen for it.
        tables: the value of ``MLA_TUNE_TABLES``; None leaves the variable as it is.
        problem: why it starts untuned, or with less than all, in a line; or empty.
    """

    command: VllmCommand
    tables: str | None = None
    problem: str = ""


def prepared(options: PrepareOptions) -> Preparation:
    """Find out what the engine is, and tune what no table answers, as far as there is time.

    Raises:
        RefusedByVllm: vLLM itself refuses the command.
        InputError: nothing can be tuned for this engine.
        EnvironmentFailure: vLLM, the cache or the device failed.
    """
    engine = _described(options)
    engine, command = _with_backend(engine, options)
    given = options.environ.get(VARIABLE, "")
    own = best_coverage(engine, _loaded(given))
    if own.table is not None:
        left = "" if own.is_complete else f"; unset {VARIABLE} to have the others tuned"
        options.say(f"{VARIABLE} has a table for it, {own.table}: {own}{left}")
        return Preparation(command)
    slot = _slot(options.cache, engine)
    found = _best(engine, options.cache)
    problem = ""
    if todo := _to_tune(engine, found, slot):
        try:
            problem = _tune(engine, slot, todo, options)
        except EnvironmentFailure as error:
            problem = in_a_line(error)
        found = _best(engine, options.cache)
    if found.table is None:
        raise EnvironmentFailure(problem or "nothing was decided before the time was over")
    slot.use()
    options.say(f"{found} of {engine.backend} have an entry in {found.table}")
    tables = os.pathsep.join(filter(None, (given, str(found.table))))
    return Preparation(command, tables, problem)


def _described(options: PrepareOptions) -> ServedEngine:
    """What vLLM says of its command, or said when all was as it is now."""
    key = command_key(options.command, options.environ)
    if (text := options.cache.description(key)) is not None:
        try:
            engine = ServedEngine.from_json(text)
        except InputError:
            pass  # of another version, or damaged
        else:
            options.say("the same command as before: vLLM is not asked again")
            return engine
    engine = ask_vllm(options.command, max(options.left_s, 1.0), options.environ)
    options.cache.keep_description(key, engine.as_json())
    return engine


def _with_backend(
    engine: ServedEngine, options: PrepareOptions
) -> tuple[ServedEngine, VllmCommand]:
    """The engine with the backend asked of us, which vLLM then has to be told of too."""
    command = options.command
    if options.backend is not None:
        name = canonical_name(options.backend)
        if name != engine.backend and get_backend(name).is_vllm:
            command = command.with_options("--attention-backend", name)
        engine = replace(engine, backend=name)
    if engine.backend is None:
        raise InputError(
            "there is no GPU here, and so no backend to tune", remedy="name one with --backend"
        )
    if engine.refusal is not None:
        raise InputError(f"no table acts in this engine: {engine.refusal}")
    if engine.backend not in BACKENDS:
        raise InputError(f"vLLM serves with {engine.backend}, which cannot be tuned")
    backend = get_backend(engine.backend)
    if tuned_mode(engine) == "eager" and backend.follows_capture_size("eager"):
        raise InputError(
            f"{engine.backend} without CUDA graphs has no table: its own choices depend on them"
        )
    return engine, command


def _loaded(setting: str) -> list[LoadedTable]:
    return load_tables(setting)[0] if setting else []


def _best(engine: ServedEngine, cache: Cache) -> Coverage:
    """The best of the shipped tables and of all slots."""
    paths = [*_shipped(), *(path for slot in cache.slots() for path in slot.tables)]
    # A table's name begins with its backend: the others need not be read.
    wanted = [str(path) for path in paths if path.name.startswith(f"{engine.backend}-")]
    return best_coverage(engine, _loaded(os.pathsep.join(wanted)))


def _shipped() -> list[Path]:
    try:
        return locate(BUNDLED)[0]
    except InputError:
        return []  # a build without tables


def _slot(cache: Cache, engine: ServedEngine) -> Slot:
    """The slot of an engine's tables; engines that differ in what is captured alone share one."""
    mode = tuned_mode(engine)
    shapes = engine_shapes(engine, (1,))
    asked = f"{engine.device} {engine.vllm} {shapes}"
    name = f"{engine.backend}-heads_{engine.model.num_q_heads}-kv_{engine.kv_cache_dtype}-{mode}"
    return cache.slot(name, asked)


def _to_tune(engine: ServedEngine, found: Coverage, slot: Slot) -> list[Part]:
    """What no table answers and was not tried here: an entry may hold to shorter lengths alone."""
    tables = _loaded(os.pathsep.join(map(str, slot.tables)))
    shapes = [entry.shape for loaded in tables for entry in loaded.table.entries]
    tried = parts_of(engine, [*shapes, *slot.failed])
    return [part for part in found.open if part not in tried]


def _tune(engine: ServedEngine, slot: Slot, todo: list[Part], options: PrepareOptions) -> str:
    """Tune what is left to do, alone in the slot; returns what was in the way, or nothing."""
    if options.left_s < LEAST_S:
        return f"no time was left to tune {len(todo)} batch sizes"
    try:
        with slot.alone(timeout_s=options.left_s) as is_mine:
            if not is_mine:
                return "another start was tuning the same until the time was over"
            # Another start may have tuned while this one waited.
            todo = _to_tune(engine, _best(engine, options.cache), slot)
            return _tuned(engine, slot, todo, options) if todo else ""
    except OSError as error:
        raise EnvironmentFailure(
            f"the cache {slot.path} cannot be written: {error.strerror or error}",
            remedy="name another with --cache",
        ) from None


def _tuned(engine: ServedEngine, slot: Slot, todo: list[Part], options: PrepareOptions) -> str:
    assert engine.backend is not None
    sizes = spread_first(part for part in todo if isinstance(part, int))
    left_s = max(options.left_s, 0)
    options.say(f"tuning {len(todo)} batch sizes of {engine.backend} for {left_s:.0f} s at most")
    request = TuneRequest(
        shapes=engine_shapes(engine, sizes),
        backend=engine.backend,
        out=slot.path,
        study_dir=slot.study_dir,
        device=options.device,
        devices=_devices(engine) if options.device == "auto" else None,
        processes=options.processes,
    )
    answer = tune_until(request, options.deadline_s, options.clock)
    if answer.failed:
        slot.keep_failed(answer.failed)
    if answer.problem == TIME_OVER:
        options.say("the time is over; the next start goes on from here")
        return ""
    return answer.problem


def _devices(engine: ServedEngine) -> str | None:
    """The GPUs of the engine, side by side; they are the first that this process sees."""
    return ",".join(map(str, range(engine.num_gpus))) if engine.num_gpus > 1 else None
