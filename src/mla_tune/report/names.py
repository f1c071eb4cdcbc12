"""Short names that tell tables apart: marks of one name would lie on one another."""

__all__ = ["distinct_names"]

from collections import defaultdict
from collections.abc import Iterator, Sequence

from mla_tune.catalogue.found import FoundTable
from mla_tune.shapes import format_size


def distinct_names(tables: Sequence[FoundTable], names: Sequence[str]) -> list[str]:
    """The ``names`` of ``tables``, longer where several have the same by what they differ in."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        places[name].append(place)
    found = list(names)
    for name, same in places.items():
        if len(same) == 1:
            continue
        differing = _differing([tables[place] for place in same])
        for place, *more in zip(same, *differing, strict=True):
            found[place] = ", ".join((name, *more))
    return found


def _differing(tables: Sequence[FoundTable]) -> Iterator[Sequence[str]]:
    """What tells them apart, a text for each table at a time."""
    headers = [table.file.header for table in tables]
    releases = [f"vLLM {header.software.get('vllm', 'none')}" for header in headers]
    reaches = [f"up to {format_size(header.engine.max_model_len)}" for header in headers]
    known = [each for each in (releases, reaches) if len(set(each)) > 1]
    yield from known
    if len(set(zip(*known, strict=True))) < len(tables):
        yield [f"no. {number}" for number in range(1, len(tables) + 1)]
