"""How long a night takes, from what earlier ones took."""

__all__ = ["handed_out", "look_seconds", "tune_seconds"]

import heapq
import statistics
from collections.abc import Sequence

from mla_tune.nightly.target import Target

TUNE_S = 8.4
"""Seconds an entry takes where no night has tuned the table: on an H100 51 graph sizes of
TRITON_MLA took 270 s and two further processes of 80 s."""

LOOK_S = 1.3
"""Seconds a sentinel takes at most: a further process took 80 s for 51 entries, its start of 28 s
or more among them."""


def tune_seconds(target: Target) -> float:
    """What tuning the whole table takes."""
    known = [each.seconds for each in target.history.readings if each.seconds is not None]
    return len(target.job.workloads) * (statistics.median(known) if known else TUNE_S)


def look_seconds(num_entries: int) -> float:
    """What looking at so many sentinels takes, without the start of the worker."""
    return num_entries * LOOK_S


def handed_out(seconds: Sequence[float], num_cards: int) -> tuple[list[int], float]:
    """Which card takes each piece of work, where the first that is free takes the next.

    Args:
        seconds: what each piece takes, in the order in which they are handed out.
        num_cards: how many cards there are.

    Returns:
        The cards, numbered from 0, and seconds until the last has ended.
    """
    free = [(0.0, card) for card in range(num_cards)]
    owners = []
    for took_s in seconds:
        began_s, card = free[0]
        heapq.heapreplace(free, (began_s + took_s, card))
        owners.append(card)
    return owners, max(free)[0]
