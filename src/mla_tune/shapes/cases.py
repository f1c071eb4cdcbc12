"""From the batch specs, ranges and grids of a shapes file to its cases."""

__all__ = ["MOST_SHAPES", "listed_cases"]

from collections.abc import Iterator

from pydantic import ValidationError

from mla_tune.errors import InputError
from mla_tune.files.document import Document
from mla_tune.shapes.batch import MOST_REQUESTS, BatchShape, RequestGroup, format_size
from mla_tune.shapes.eager import eager_cases
from mla_tune.shapes.sections import Grid, Range, ShapesSection, SpecRange
from mla_tune.shapes.workload import Case

MOST_SHAPES = 10_000
"""More than a week of tuning; a range of a billion would fill the memory before it is refused."""


def listed_cases(document: Document, section: ShapesSection) -> tuple[Case, ...]:
    """Collect the shapes of all forms, refusing one that stands twice.

    Those of a region may have been listed as well.
    """
    cases: dict[BatchShape, Case] = {}
    origin: dict[BatchShape, str] = {}
    for where, case in _all_cases(document, section):
        if case.shape in cases:
            raise InputError(
                f"{where}: batch shape {str(case.shape)!r} stands twice; "
                f"it is already at {origin[case.shape]}",
                remedy="remove one, or give one of them the joint weight",
            )
        if len(cases) == MOST_SHAPES:
            raise InputError(
                f"{where}: more than {MOST_SHAPES} batch shapes",
                remedy="give the ranges a wider step; a lookup answers between tuned shapes",
            )
        cases[case.shape] = case
        origin[case.shape] = where
    for case in eager_cases(document, section.eager):
        cases.setdefault(case.shape, case)
    if not cases:
        raise InputError(
            f"{document.path}: no batch shapes",
            valid="batch_specs: [32q1s1k, …], batch_spec_ranges:, grids: or eager:",
        )
    return tuple(cases.values())


def _all_cases(document: Document, section: ShapesSection) -> Iterator[tuple[str, Case]]:
    # vLLM repeats each spec for every batch size, by prefixing the count.
    sizes = section.batch_sizes or [1]
    for where, spec, weight in _specs(document, section):
        shape = _parse_at(where, spec)
        for size in sizes:
            if shape.num_requests * size > MOST_REQUESTS:
                raise InputError(
                    f"{where}: {spec!r} times the batch size {size} are "
                    f"{shape.num_requests * size} requests",
                    valid=f"{MOST_REQUESTS} or fewer",
                )
            groups = (RequestGroup(g.query_len, g.kv_len, g.count * size) for g in shape.groups)
            yield where, Case(BatchShape.of(groups), weight)
    for index, grid in enumerate(section.grids):
        yield from _grid_cases(document.where(("grids", index)), grid)


def _specs(document: Document, section: ShapesSection) -> Iterator[tuple[str, str, float]]:
    """Where each batch spec stands, the spec, and its weight."""
    for index, item in enumerate(section.batch_specs):
        spec, weight = (item, 1.0) if isinstance(item, str) else (item.spec, item.weight)
        yield document.where(("batch_specs", index)), spec, weight
    for index, spec_range in enumerate(section.batch_spec_ranges):
        where = document.where(("batch_spec_ranges", index))
        for spec in _expand(document, index, spec_range):
            yield where, spec, 1.0


def _parse_at(where: str, spec: str) -> BatchShape:
    try:
        return BatchShape.parse(spec)
    except InputError as error:
        raise InputError(f"{where}: {error.what}", valid=error.valid) from None


def _expand(document: Document, index: int, item: SpecRange) -> Iterator[str]:
    ranges: dict[str, Range] = {}
    for name, value in (item.model_extra or {}).items():
        try:
            ranges[name] = Range.model_validate(value)
        except ValidationError as error:
            where = document.where(("batch_spec_ranges", index, name))
            raise InputError(
                f"{where}: batch_spec_ranges[{index}].{name}: {error.errors()[0]['msg']}",
                valid="{start: N, stop: N, step: N, end_inclusive: true}",
            ) from None
    yield from _fill(document, index, item.template, dict(ranges))


def _fill(document: Document, index: int, template: str, ranges: dict[str, Range]) -> Iterator[str]:
    if not ranges:
        if "{" in template:
            raise InputError(
                f"{document.where(('batch_spec_ranges', index))}: template {template!r} has a "
                "placeholder without a range"
            )
        yield template
        return
    name, values = next(iter(ranges.items()))
    rest = {key: value for key, value in ranges.items() if key != name}
    for value in values.values():
        yield from _fill(document, index, template.replace(f"{{{name}}}", str(value)), rest)


def _grid_cases(where: str, grid: Grid) -> Iterator[tuple[str, Case]]:
    for batch in grid.batch_sizes:
        for query_len in grid.query_lens:
            for kv_len, weight in grid.kv_lens.items():
                if kv_len < query_len:
                    raise InputError(
                        f"{where}: grid combines query length {query_len} with KV length "
                        f"{format_size(kv_len)}; the KV length counts the new tokens too",
                        remedy="split the grid in two",
                    )
                yield where, Case(BatchShape.of([RequestGroup(query_len, kv_len, batch)]), weight)
