"""How backends are shown beside each other: as text and for programs."""

__all__ = ["contest_text", "contests_json"]

from collections.abc import Iterator, Sequence
from typing import Any

from mla_tune.catalogue.contest import Contest
from mla_tune.catalogue.points import Point
from mla_tune.catalogue.regions import Region, regions
from mla_tune.catalogue.timing import Ratio, Timing
from mla_tune.cli.columns import in_columns
from mla_tune.cli.figures import told_time
from mla_tune.cli.json_output import plain_plan, plain_ratio
from mla_tune.cli.printing import folded
from mla_tune.printable import counted, counted_are, printable
from mla_tune.registry import BACKENDS

STANDING_COLUMNS = ("one backend for all", "vLLM", "untuned", "tuned", "loses", "at worst", "at")
REGION_COLUMNS = ("new tokens", "KV length", "requests", "fastest", "ahead of the next by")


def contest_text(contest: Contest, width: int | None) -> str:
    """What a person wants to know, the answer last."""
    lines = [printable(str(contest.ground))]
    if len(contest.contenders) == 1:
        only = contest.contenders[0].name
        return "\n".join([*lines, f"only {only} has a table: nothing to compare it with"])
    if contest.points:
        lines += ["", *_shapes(contest, width), "", *_regions(contest, width)]
    if contest.standings:
        lines += ["", *_standings(contest, width)]
    told = [folded(line, width) for line in (*notes(contest), _answer(contest))]
    return "\n".join([*lines, "", *told])


def notes(contest: Contest) -> list[str]:
    """What a reader has to know of the comparison."""
    found = []
    releases = {each.name: each.vllm or "none" for each in contest.contenders}
    if len(set(releases.values())) > 1:
        told = ", ".join(f"{name} with {release}" for name, release in releases.items())
        found.append(f"other releases of vLLM: {told}; some of the difference may be theirs")
    engines = {
        each.name: each.table.file.header.engine.max_model_len for each in contest.contenders
    }
    if len(set(engines.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in engines.items())
        found.append(f"other max_model_len: {told}")
    if contest.differing:
        shapes_are = counted_are(len(contest.differing), "shape")
        found.append(
            f"{shapes_are} left out: the tables have other cases or weights "
            f"for them ({contest.differing[0]}, ...)"
        )
    for place, contender in enumerate(contest.contenders):
        absent = [point.shape for point in contest.points if point.timings[place] is None]
        unknown = [point.shape for point in contest.points if _is_unknown(point.timings[place])]
        if absent:
            found.append(f"{contender.name} has no entry for {_some(absent)}")
        if unknown:
            found.append(
                f"{contender.name} has nothing proven to run for {_some(unknown)}: its default "
                "could not be measured"
            )
    return list(map(printable, found))


def _is_unknown(timing: Timing | None) -> bool:
    return timing is not None and timing.served_us is None


def _some(shapes: Sequence[str]) -> str:
    return f"{', '.join(shapes[:3])}{f' and {len(shapes) - 3} more' if len(shapes) > 3 else ''}"


def _answer(contest: Contest) -> str:
    place = contest.winner
    if place is None:
        return "no shape is in all of the tables: nothing can be said of one backend for all"
    winner = contest.contenders[place]
    tied = _tied_in_all(contest)
    beside = (
        f", tied with {', '.join(contest.contenders[each].name for each in tied)}" if tied else ""
    )
    flag = f": {_flag(winner.backend)}" if _flag(winner.backend) else ""
    over = counted(len(contest.complete), "shape")
    return f"fastest over {over} by weight: {winner.name}{beside}{flag}"


def _tied_in_all(contest: Contest) -> list[int]:
    """Those that lose no more than the winner does, as far as can be told."""
    best = contest.winner
    if best is None:
        return []
    on_gpu = contest.ground.compute_capability is not None
    return [
        place
        for place, standing in enumerate(contest.standings)
        if place != best and standing.over(contest.standings[best]).is_tie(on_gpu)
    ]


def _flag(backend: str) -> str | None:
    """The flag that has vLLM choose a backend; None for one that is not vLLM's."""
    return f"--attention-backend {backend}" if BACKENDS[backend].is_vllm else None


def _shapes(contest: Contest, width: int | None) -> list[str]:
    names = [each.name for each in contest.contenders]
    rows = [
        (
            point.shape,
            _fastest(point, names),
            *(_told_timing(timing) for timing in point.timings),
            _ahead(point),
        )
        for point in contest.points
    ]
    return in_columns(("shape", "fastest", *names, "ahead of the next by"), rows, 2, width)


def _fastest(point: Point, names: Sequence[str]) -> str:
    if point.fastest is None:
        return "–"
    tied = [names[place] for place in point.tied]
    return names[point.fastest] + (f" (tied with {', '.join(tied)})" if tied else "")


def _told_timing(timing: Timing | None) -> str:
    """Untuned and tuned, or once what is the same in both."""
    if timing is None:
        return "–"
    if timing.default_us is None or timing.served_us is None:
        return "not measured"
    served = told_time(timing.served_us)
    return f"{told_time(timing.default_us)} → {served}" if timing.plan else served


def _ahead(point: Point) -> str:
    place = point.next_best
    return "–" if place is None else _told_ratio(point.behind(place))


def _told_ratio(ratio: Ratio) -> str:
    interval = "" if ratio.low is None else f" ({ratio.low:.2f}–{ratio.high:.2f})"
    return f"{ratio.value:.2f}×{interval}"


def _regions(contest: Contest, width: int | None) -> list[str]:
    names = [each.name for each in contest.contenders]
    rows = [
        (str(region.query_len), region.kv_lens, *_told_region(region, names))
        for region in regions(contest.points)
    ]
    return in_columns(REGION_COLUMNS, rows, 4, width)


def _told_region(region: Region, names: Sequence[str]) -> tuple[str, str, str]:
    tied = [names[place] for place in region.tied]
    fastest = names[region.fastest] + (f" (tied with {', '.join(tied)})" if tied else "")
    return _span(*region.batches), fastest, f"{_span(*(f'{each:.2f}' for each in region.ahead))}×"


def _span(low: object, high: object) -> str:
    return f"{low}" if low == high else f"{low}–{high}"


def _standings(contest: Contest, width: int | None) -> list[str]:
    pairs = zip(contest.contenders, contest.standings, strict=True)
    rows = [
        (
            contender.name,
            contender.vllm or "–",
            "not measured" if standing.default_us is None else told_time(standing.default_us),
            told_time(standing.us),
            _told_ratio(standing.loss),
            f"{standing.worst.value:.2f}×",
            standing.worst_shape if standing.worst.value > 1 else "–",
        )
        for contender, standing in sorted(pairs, key=lambda pair: pair[1].us)
    ]
    return in_columns(STANDING_COLUMNS, rows, 1, width)


def contests_json(contests: Sequence[Contest], problems: Sequence[str]) -> dict[str, Any]:
    """All of it, for a program."""
    return {"comparisons": list(map(_plain, contests)), "problems": list(problems)}


def _plain(contest: Contest) -> dict[str, Any]:
    ground, names = contest.ground, [each.name for each in contest.contenders]
    winner = contest.winner
    return {
        "gpu": ground.gpu,
        "model": dict(ground.model),
        "kv_cache_dtype": ground.kv_cache_dtype,
        "quantization": ground.quantization,
        "index_topk": ground.index_topk,
        "mode": ground.mode,
        "fastest": None if winner is None else names[winner],
        "tied": [names[place] for place in _tied_in_all(contest)],
        "num_compared": len(contest.complete),
        "backends": list(_plain_backends(contest)),
        "shapes": [_plain_point(point, names) for point in contest.points],
        "regions": [_plain_region(region, names) for region in regions(contest.points)],
        "differing_cases": list(contest.differing),
        "notes": notes(contest),
    }


def _plain_backends(contest: Contest) -> Iterator[dict[str, Any]]:
    for place, contender in enumerate(contest.contenders):
        standing = contest.standings[place] if contest.standings else None
        yield {
            "name": contender.name,
            "backend": contender.backend,
            "table": str(contender.table.path),
            "vllm": contender.vllm,
            "vllm_flag": _flag(contender.backend),
            "default_us": standing and standing.default_us,
            "tuned_us": standing and standing.us,
            "loss": plain_ratio(standing.loss if standing else None),
            "worst": plain_ratio(standing.worst if standing else None),
            "worst_shape": standing and standing.worst_shape,
        }


def _plain_point(point: Point, names: Sequence[str]) -> dict[str, Any]:
    place = point.next_best
    return {
        "shape": point.shape,
        "weight": point.weight,
        "fastest": None if point.fastest is None else names[point.fastest],
        "tied": [names[each] for each in point.tied],
        "ahead": plain_ratio(None if place is None else point.behind(place)),
        "times": {
            name: timing
            and {
                "default_us": timing.default_us,
                "tuned_us": timing.served_us,
                "plan": plain_plan(timing.plan),
                "speedup": timing.speedup and timing.speedup.model_dump(),
            }
            for name, timing in zip(names, point.timings, strict=True)
        },
        "lengths": [_plain_point(each, names) for each in point.lengths],
    }


def _plain_region(region: Region, names: Sequence[str]) -> dict[str, Any]:
    return {
        "query_len": region.query_len,
        "kv_lens": region.kv_lens.split(","),
        "requests": list(region.batches),
        "fastest": names[region.fastest],
        "tied": [names[place] for place in region.tied],
        "ahead": list(region.ahead),
    }
