"""The text of docs/search.md: what was compared, how, what it shows and what it cannot."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np

from mla_tune.tuning.decide import MIN_ROUNDS
from mla_tune.tuning.settings import Settings
from mla_tune.tuning.study.policy import LARGEST_ENUMERATED
from search_policies import ACTS_FROM, AS_A_RUN, HALF, SAMPLERS, START_UP, sampled
from search_tables import table
from search_tunes import Result

WIDTH = 114


@dataclass(frozen=True)
class Findings:
    """What a comparison found.

    Attributes:
        results: of all tunes.
        alike: of the workloads whose plans are alike, the table of each and whether a plan was
            published.
        seeds: how often each workload was tuned.
    """

    results: Sequence[Result]
    alike: Sequence[tuple[str, bool]]
    seeds: int


def document(found: Findings) -> str:
    """The whole of docs/search.md."""
    as_run = [result for result in found.results if result.policy == AS_A_RUN]
    sized = sorted(
        (result for result in found.results if result.policy in {AS_A_RUN, HALF}),
        key=lambda result: result.num_plans,
    )
    blocks = [
        *_method(found, as_run),
        table(everywhere(found.results), "chosen", lambda result: result.policy),
        "![Share of tunes by regret](search.png)",
        "As a run does, by recording:",
        table(as_run, "recording", lambda result: result.recording),
        "By the number of plans:",
        table(sized, "plans", lambda result: f"{result.num_plans}, {result.policy}"),
        *_samplers(found),
        *_unseen(found, as_run),
    ]
    return "\n\n".join(blocks) + "\n"


def everywhere(results: Iterable[Result]) -> list[Result]:
    """The results of the policies that are compared in spaces of every size."""
    return [result for result in results if result.policy not in map(sampled, SAMPLERS)]


def _filled(text: str) -> str:
    """A paragraph, or the points of a list, in lines as long as those of the other documents."""
    paragraphs = text.strip().split("\n- ")
    return "\n".join(
        fill(
            paragraph if number == 0 else f"- {paragraph}",
            WIDTH,
            subsequent_indent="  " if text.lstrip().startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for number, paragraph in enumerate(paragraphs)
    )


def _method(found: Findings, as_run: Sequence[Result]) -> list[str]:
    workloads = len(as_run) // found.seeds
    times = "once" if found.seeds == 1 else f"{found.seeds} times"
    return [
        "# Search policies compared on recordings",
        _filled(f"""
Written by `scripts/bench_search.py` from the recordings in `tests/data/`: {workloads} workloads
with two plans or more, each tuned {times}. A tune draws from the earlier half of a
workload's rounds; the later half, which no tune sees, judges it. Not every other round: a table is
measured first and served afterwards, and alternating rounds would share every drift."""),
        _filled(f"""
- *Regret*: by how much the chosen plan is slower than the best one in the held-out rounds, of those
that slow down no KV length by more than 1 %. The judge's best is partly its luckiest, so regret
is overstated: the last row chooses by all played rounds and has regret too.
- *Slower*: tunes whose plan is slower than the default in the held-out rounds, by whatever little;
*by*: the most. *A length slower*: tunes whose plan is slower by more than 1 % at one of several KV
lengths.
- *Not default*: tunes that chose another plan than the default.
- *Screening*, *all samples*: rounds measured until the confirmation and in all, over those of
measuring every plan {Settings().trial_rounds} times."""),
        _filled(f"""
"{AS_A_RUN.capitalize()}" tries all plans, and first those that the entry of the workload before it
names."""),
    ]


def _samplers(found: Findings) -> list[str]:
    large = [result for result in found.results if result.num_plans >= ACTS_FROM]
    names = ", ".join(sorted({result.recording for result in large}))
    where = (
        f"The recorded spaces that large are those of {names}:" if large else "None is recorded."
    )
    return [
        "## Samplers",
        _filled(f"""
Optuna's TPE and GP begin with {START_UP} trials at random. With a budget of half of the plans (at
all of them a sampler is an enumeration with repeats), that start-up is all there is of a small
space. So they are compared from {ACTS_FROM} plans on. {where}"""),
        *([table(large, "chosen", lambda result: result.policy)] if large else []),
        _filled(f"""
Spaces of up to {LARGEST_ENUMERATED} plans are enumerated. Larger ones, those with launch constants,
have [a comparison of their own](search-launches.md)."""),
    ]


def _unseen(found: Findings, as_run: Sequence[Result]) -> list[str]:
    moved = [result.moved for result in as_run]
    usual, seldom = np.median(moved), np.quantile(moved, 0.95)
    rounds = sorted({result.played_rounds for result in as_run})
    wrong = [name for name, published in found.alike if published]
    where = f", wrongly: of {', '.join(sorted(set(wrong)))}" if wrong else ""
    return [
        "## What this cannot see",
        _filled(f"""
- **Other processes, cards and days.** Both halves are from one process on one card, one right after
the other: a plan's latency differs by {usual:.2%} between them (median), by {seldom:.1%} in one
workload of twenty. What moves from one process to the next is not in here; a run lets
[other processes](how-it-decides.md#other-processes) race its winners, a recording has one, and its
intervals are only widened by what is known of others.
- **How good an interval is.** A half has {rounds[0]} to {rounds[-1]} rounds, and a confirmation
draws about {Settings().confirmation_rounds} from them, with repeats: it takes for certain what
so few rounds happen to say. A run measures at least {MIN_ROUNDS} of its own. Where every plan
played back the default's rounds, shuffled, {len(wrong) or "none"} of {len(found.alike)} tunes
published one{where}.
- **Faults and wrong results.** A plan that is played back does not crash, hang or answer wrongly.
- **Other shapes than those recorded**: one model's dimensions with 16 heads, KV dtype auto. What a
table answers between its points is judged in
[how it decides](how-it-decides.md#between-measured-points).
- **Time.** Samples are counted, not the seconds that they take."""),
    ]
