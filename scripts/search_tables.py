"""The tables and the plot of docs/search.md."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from search_tunes import NOTHING, SEEN_BEST, Result


def _row(title: str, results: Sequence[Result]) -> str:
    """The figures of one group of results."""
    regret = np.array([result.regret for result in results])
    losses = [result.loss for result in results if result.is_plan and result.loss > 0]
    slowed = sum(result.is_plan and result.slows_a_length for result in results)
    cells = [
        title,
        f"{len(results)}",
        f"{np.mean(regret):.2%}",
        f"{regret.max():.1%}",
        f"{len(losses) / len(results):.1%}",
        f"{max(losses, default=0.0):.1%}",
        f"{slowed / len(results):.1%}",
        f"{np.mean([result.is_plan for result in results]):.0%}",
    ]
    spent = [result.spent_share for result in results]
    if any(spent):
        cells += [f"{np.mean([r.screened_share for r in results]):.2f}", f"{np.mean(spent):.1f}"]
    else:
        cells += ["", ""]
    return f"| {' | '.join(cells)} |"


def table(results: Iterable[Result], first: str, title: Callable[[Result], str]) -> str:
    """A table with one row for each ``title``, in the order they come."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(title(result), []).append(result)
    heads = [first, "tunes", "regret, mean", "worst", "slower", "by", "a length slower"]
    heads += ["not default", "screening", "all samples"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(_row(name, group) for name, group in groups.items())])


def plot(results: Iterable[Result], path: Path) -> None:
    """Draw the share of tunes whose regret is above a value, a line for each policy."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    regrets: dict[str, list[float]] = {}
    for result in results:
        regrets.setdefault(result.policy, []).append(result.regret)
    for name, mine in regrets.items():
        ordered = np.sort(mine)[::-1] * 100
        shares = np.arange(1, len(ordered) + 1) / len(ordered)
        style = ":" if name in {NOTHING, SEEN_BEST} else "-"
        axes.step(np.maximum(ordered, 1e-2), shares, style, label=name)
    axes.set(xscale="log", yscale="log", xlabel="regret, %", ylabel="share of tunes above it")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
