"""Which backend an engine starts with, of those that vLLM takes for it.

vLLM's own choice stays unless another is proven to be faster by more than the gate: with both as
they would serve, their tables included.
"""

__all__ = ["picked"]

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from mla_tune.environment import KERNEL_PACKAGES, installed_versions
from mla_tune.errors import MlaTuneError
from mla_tune.plan.plan import Plan
from mla_tune.registry import BACKENDS, get_backend
from mla_tune.serving.compare_request import CompareAnswer, CompareRequest, Contending
from mla_tune.serving.coverage import plans_of
from mla_tune.serving.engine import ServedEngine
from mla_tune.serving.engine_shapes import engine_shapes, tuned_mode
from mla_tune.serving.lines import in_a_line
from mla_tune.serving.order import spread_first
from mla_tune.serving.prepare_options import PrepareOptions
from mla_tune.serving.tabled import LEAST_S, Tabled, tabled
from mla_tune.serving.tune_process import STOP_S, compare_until
from mla_tune.serving.tune_request import MIN_SPEEDUP_OF_ONE_PROCESS
from mla_tune.tuning.comparison import Comparison

MOST_SIZES = 5
"""Captured sizes that are compared: the smallest, the largest, and those farthest from all others.
Every visit captures each of them at each KV length."""

COMPARING_S = 90.0
SHARE_OF_COMPARING = 0.4
"""Of the time: as long as three backends need for four visits, but not at the cost of tables."""

FIRST_S = 30.0
"""For vLLM's choice at least, which most engines end up with where there is little time."""

Prepared = list[tuple[ServedEngine, Tabled]]


def picked(
    own: ServedEngine, others: Sequence[ServedEngine], options: PrepareOptions
) -> tuple[ServedEngine, Tabled]:
    """Tune all of them, compare them, and return the one to start with.

    Args:
        own: the engine with the backend that vLLM chooses.
        others: the same with each other backend that it takes.
        options: how an engine is prepared.

    Raises:
        MlaTuneError: ``own`` cannot be tuned. What fails with another leaves that one out.
    """
    alike = [other for other in others if _is_alike(own, other, options)]
    prepared = list(_tabled([own, *alike], options))
    if len(prepared) == 1:
        options.say(f"there is no other backend to compare with {own.backend}")
        return prepared[0]
    best = _best(_compared(prepared, options))
    if best is None:
        options.say(f"no backend is proven to be faster: {own.backend}, vLLM's choice, stays")
        return prepared[0]
    return next(each for each in prepared if each[0].backend == best.backend)


def _is_alike(own: ServedEngine, other: ServedEngine, options: PrepareOptions) -> bool:
    """Whether a user would get the same engine, but for how fast it is."""
    if other.backend not in BACKENDS or other.refusal is not None:
        return False
    differing = [
        name
        for name in ("kv_cache_dtype", "max_model_len", "capture_sizes")
        if getattr(own, name) != getattr(other, name)
    ]
    if tuned_mode(own) != tuned_mode(other):
        differing.append("engine mode")
    if differing:
        options.say(f"{other.backend} is left out: it would have another {', '.join(differing)}")
    return not differing


def _tabled(
    engines: Sequence[ServedEngine], options: PrepareOptions
) -> Iterator[tuple[ServedEngine, Tabled]]:
    """Each with its table; the first, whose failure is everyone's, has its time before all."""
    left_s = options.left_s
    for number, engine in enumerate(engines):
        reserved_s = min(COMPARING_S, left_s * SHARE_OF_COMPARING)
        share_s = max(options.left_s - reserved_s, 0.0) / (len(engines) - number)
        if number == 0:
            share_s = max(share_s, min(FIRST_S, options.left_s))
        try:
            yield engine, tabled(engine, replace(options, deadline_s=options.clock() + share_s))
        except MlaTuneError as error:
            if number == 0:
                raise
            options.say(f"{engine.backend} is left out: {in_a_line(error)}")


def _compared(prepared: Prepared, options: PrepareOptions) -> Sequence[Comparison]:
    """What was measured of them as they are, now or at an earlier start."""
    plans = [plans_of(engine, found.table) for engine, found in prepared]
    key = _key(prepared, plans)
    comparisons = _kept(key, options)
    if comparisons is None:
        comparisons = _measured(prepared, plans, options)
        if comparisons and all(each.is_final(MIN_SPEEDUP_OF_ONE_PROCESS) for each in comparisons):
            kept = CompareAnswer(comparisons).as_json()
            options.cache.keep_description(key, kept)
    own = prepared[0][0].backend
    for comparison in comparisons:
        options.say(f"{comparison.backend} beside {own}, vLLM's choice: {comparison}")
    return comparisons


def _key(prepared: Prepared, plans: Sequence[dict[str, Plan]]) -> str:
    """A text that changes whenever the comparison might come out otherwise."""
    engines = [engine for engine, _ in prepared]
    digests = {each.backend: dict(get_backend(str(each.backend)).digests()) for each in engines}
    return json.dumps(
        {
            "compared": [engine.as_json() for engine in engines],
            "plans": [{key: dict(plan) for key, plan in each.items()} for each in plans],
            "digests": digests,
            "packages": installed_versions(*KERNEL_PACKAGES),
        }
    )


def _kept(key: str, options: PrepareOptions) -> tuple[Comparison, ...] | None:
    if (text := options.cache.description(key)) is None:
        return None
    try:
        return CompareAnswer.from_json(text).comparisons
    except ValueError:
        return None  # of another version, or damaged


def _measured(
    prepared: Prepared, plans: Sequence[dict[str, Plan]], options: PrepareOptions
) -> tuple[Comparison, ...]:
    if options.left_s < LEAST_S:
        options.say(f"no time was left to compare {len(prepared)} backends")
        return ()
    options.say(f"comparing {len(prepared)} backends for {options.left_s:.0f} s at most")
    engine = prepared[0][0]
    sizes = spread_first(engine.capture_sizes, engine.most_decode_tokens)[:MOST_SIZES]
    contending = tuple(
        Contending(str(engine.backend), engine_shapes(engine, sizes), each)
        for (engine, _), each in zip(prepared, plans, strict=True)
    )
    request = CompareRequest(
        contending,
        options.device,
        MIN_SPEEDUP_OF_ONE_PROCESS,
        # To be asked to end is too late for an answer, and its own worker has to be ended too.
        ends_s=options.deadline_s - 2 * STOP_S,
    )
    answer = compare_until(request, options.deadline_s, options.clock)
    if answer.problem:
        options.say(f"backends were not compared: {answer.problem}")
    return answer.comparisons


def _best(comparisons: Sequence[Comparison]) -> Comparison | None:
    """The fastest of those that are proven to be faster than the first by more than the gate."""
    proven = [
        (each.speedup.median, each)
        for each in comparisons
        if each.speedup is not None and each.speedup.low > MIN_SPEEDUP_OF_ONE_PROCESS
    ]
    return max(proven, key=lambda pair: pair[0])[1] if proven else None
