"""The tables of one engine: those that there are, and tuning what they leave open."""

__all__ = ["VARIABLE", "Tabled", "tabled"]

import os
from dataclasses import dataclass
from pathlib import Path

from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.registry import BACKENDS, get_backend
from mla_tune.serving.cache import Cache, Slot
from mla_tune.serving.coverage import Coverage, Part, best_coverage, parts_of
from mla_tune.serving.engine import ServedEngine
from mla_tune.serving.engine_shapes import engine_shapes, tuned_mode
from mla_tune.serving.lines import in_a_line
from mla_tune.serving.order import spread_first
from mla_tune.serving.prepare_options import PrepareOptions
from mla_tune.serving.tune_process import TIME_OVER, tune_until
from mla_tune.serving.tune_request import TuneRequest
from mla_tune.table.folders import BUNDLED
from mla_tune.table.loading import LoadedTable, load_tables, locate

VARIABLE = "MLA_TUNE_TABLES"

LEAST_S = 10.0
"""With less time left than a start of the worker takes, none is started."""

LAUNCHES_FROM_S = 300.0
"""With less time left only split counts are tuned. The search for other launches comes before any
decision, and took a whole start of 67 s on an H100; a batch size then took 10 s, else 1 to 5."""


@dataclass(frozen=True)
class Tabled:
    """The table that acts in an engine.

    Attributes:
        table: its file.
        variable: the value of ``MLA_TUNE_TABLES``; None leaves the variable as it is.
        problem: what was in the way of tuning all, in a line; or empty.
    """

    table: Path
    variable: str | None = None
    problem: str = ""


def tabled(engine: ServedEngine, options: PrepareOptions) -> Tabled:
    """Find the best table, after tuning one as far as there is time, where none answers all.

    Raises:
        InputError: nothing can be tuned for this engine.
        EnvironmentFailure: the cache or the device failed.
    """
    _check_tunable(engine)
    given = options.environ.get(VARIABLE, "")
    own = best_coverage(engine, _loaded(given))
    if own.table is not None:
        left = "" if own.is_complete else f"; unset {VARIABLE} to have the others tuned"
        options.say(f"{VARIABLE} has a table for it, {own.table}: {own}{left}")
        return Tabled(own.table)
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
    return Tabled(found.table, os.pathsep.join(filter(None, (given, str(found.table)))), problem)


def _check_tunable(engine: ServedEngine) -> None:
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
            f"{engine.backend} without CUDA graphs has no table: vLLM reads its cap on splits "
            "where full graphs are on, and nowhere else"
        )


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
    """What the slot's table lacks and was not tried, where it can answer what ``found`` does not.

    One table acts in an engine, so that the slot's needs what ``found`` answers too. What was
    tried may be open still: an entry may hold to shorter lengths alone.
    """
    if found.is_complete:
        return []
    tables = _loaded(os.pathsep.join(map(str, slot.tables)))
    shapes = [entry.shape for loaded in tables for entry in loaded.table.entries]
    tried = parts_of(engine, [*shapes, *slot.failed])
    own = best_coverage(engine, tables)
    untried = [part for part in own.open if part not in tried]
    gained = {*own.answered, *untried}.intersection(found.open)
    return untried if gained else []


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
    captured = (part for part in todo if isinstance(part, int))
    sizes = spread_first(captured, engine.most_decode_tokens)
    left_s = max(options.left_s, 0)
    how_many = len(sizes) or len(todo)
    options.say(f"tuning {how_many} batch sizes of {engine.backend} for {left_s:.0f} s at most")
    request = TuneRequest(
        shapes=engine_shapes(engine, sizes),
        backend=engine.backend,
        out=slot.path,
        study_dir=slot.study_dir,
        device=options.device,
        devices=_devices(engine) if options.device == "auto" else None,
        processes=options.processes,
        launches="none" if left_s < LAUNCHES_FROM_S else None,
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
