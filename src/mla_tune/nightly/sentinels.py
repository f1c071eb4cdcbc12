"""Which entries a night looks at again where nothing has changed: few, and all in a few nights."""

__all__ = ["SHARE", "nights_to_cover", "rivals", "rivals_in_turn", "sentinels"]

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from mla_tune.nightly.history import History
from mla_tune.nightly.target import Target
from mla_tune.plan.plan import Plan
from mla_tune.table import Entry

SHARE = 0.3
"""Of the entries, those that a night looks at. On an H100 a tune of 51 graph sizes took 430 s, of
them 80 s for 48 rounds of each plan beside the default in another process. A look takes 10 rounds:
at most a sixth of a tune, so a night costs at most 5 % of one."""

FIXED = 2
"""Sentinels of a table that are the same every night: the largest gain and the smallest margin."""

FEWEST = 20
"""Entries from which a table has fixed sentinels: below, they would leave none to go round."""

RIVALS = 4
"""Of so many sentinels that keep the default, one is looked at beside its rival: that takes twice
the samples, and a night of them alone would cost more than a twentieth."""

NEVER = datetime.min.replace(tzinfo=UTC)


def sentinels(targets: Sequence[Target], tonight: datetime) -> dict[Path, list[Entry]]:
    """The entries that are still to be looked at tonight, by table.

    The fixed ones of each table, and the others in turn: first those that have not been looked at
    for the longest time, over all tables together. What has been seen since ``tonight`` counts.
    """
    seen = {
        (target.path, entry.shape): _last_seen(target, entry)
        for target in targets
        for entry in _measured(target)
    }
    most = max(1, math.floor(SHARE * len(seen)))
    most -= sum(at >= tonight for at in seen.values())
    chosen: dict[Path, list[Entry]] = {}
    left = []
    for target in targets:
        entries = _measured(target)
        new = [entry for entry in entries if seen[target.path, entry.shape] < tonight]
        chosen[target.path] = [entry for entry in fixed(entries) if entry in new]
        left += [(target.path, entry) for entry in new if entry not in chosen[target.path]]
    left.sort(key=lambda each: seen[each[0], each[1].shape])
    for path, entry in left[: max(0, most - sum(map(len, chosen.values())))]:
        chosen[path].append(entry)
    return {path: entries for path, entries in chosen.items() if entries}


def fixed(entries: Sequence[Entry]) -> list[Entry]:
    """The published plans with the largest gain, and the one that is nearest to not being one."""
    published = [entry for entry in entries if entry.plan and entry.speedup is not None]
    if len(entries) < FEWEST or len(published) < FIXED:
        return []
    largest = max(published, key=_gain)
    nearest = min((entry for entry in published if entry is not largest), key=_low)
    return [largest, nearest]


def rivals(entries: Iterable[Entry]) -> dict[str, Plan]:
    """The plan that could be told from the default the least, of entries that keep it, by shape."""
    return {entry.shape: entry.ties[0] for entry in entries if not entry.plan and entry.ties}


def rivals_in_turn(entries: Iterable[Entry], history: History) -> dict[str, Plan]:
    """Of the `rivals` of tonight's sentinels those that have waited longest; one at least."""
    found = rivals(entries)

    def last_seen(shape: str) -> datetime:
        readings = history.by_shape.get(shape, ())
        return max((each.at for each in readings if each.rival is not None), default=NEVER)

    most = max(1, len(found) // RIVALS)
    return {shape: found[shape] for shape in sorted(found, key=last_seen)[:most]}


def nights_to_cover(num_entries: int) -> int:
    """In how many nights each entry of a table is looked at, were it alone in its folder."""
    num_fixed = FIXED if num_entries >= FEWEST else 0
    in_turn = max(1, math.floor(SHARE * num_entries)) - num_fixed
    return math.ceil((num_entries - num_fixed) / in_turn)


def _measured(target: Target) -> list[Entry]:
    """The entries that say how fast something is that can run again."""
    return [entry for entry in target.entries if entry.default_us is not None]


def _last_seen(target: Target, entry: Entry) -> datetime:
    readings: Iterable[datetime] = (
        reading.at for reading in target.history.by_shape.get(entry.shape, ())
    )
    return max(readings, default=NEVER)


def _gain(entry: Entry) -> float:
    return entry.speedup.median if entry.speedup is not None else 1.0


def _low(entry: Entry) -> float:
    return entry.speedup.low if entry.speedup is not None else 1.0
