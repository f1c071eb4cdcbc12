"""shapes.yaml: what to tune for. Reads our own files and vLLM's attention-benchmark configs."""

__all__ = ["ShapesFile", "checked_shapes", "load_shapes"]

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mla_tune.errors import InputError, nearest_hint
from mla_tune.files.document import Document, Kind
from mla_tune.quantization import UNQUANTIZED
from mla_tune.shapes.batch import MOST_REQUESTS, BatchShape, Case, RequestGroup, format_size
from mla_tune.shapes.model import PRESETS, MlaDimensions
from mla_tune.shapes.sections import (
    KV_CACHE_DTYPES,
    OTHER_KV_CACHE_DTYPES,
    EngineSection,
    Grid,
    ModelSection,
    Range,
    ShapesSection,
    SpecRange,
    WeightedSpec,
)
from mla_tune.shapes.vllm_benchmark import refuse_ordinary_attention, without_vllm_only_keys

MOST_SHAPES = 10_000
"""More than a week of tuning; a range of a billion would fill the memory before it is refused."""


@dataclass(frozen=True)
class ShapesFile:
    """A shapes file, read and checked.

    ``models`` holds the dimensions of ``whole_model`` once per tensor-parallel size; ``notices``
    names what the file says that does not apply here, one line each. A ``block_size`` or
    ``max_cudagraph_capture_size`` of None is vLLM's own.
    """

    path: Path
    whole_model: MlaDimensions
    models: tuple[MlaDimensions, ...]
    cases: tuple[Case, ...]
    kv_cache_dtypes: tuple[str, ...]
    modes: tuple[str, ...]
    max_model_len: int
    index_topk: int
    backends: tuple[str, ...]
    quantization: str = UNQUANTIZED
    block_size: int | None = None
    max_cudagraph_capture_size: int | None = None
    notices: tuple[str, ...] = field(default=())


def load_shapes(path: Path) -> ShapesFile:
    """Read ``path`` as a shapes file or as one of vLLM's attention-benchmark configs.

    Raises:
        InputError: names the file, the line, the key and the value, and what is valid.
    """
    return checked_shapes(Document.load(path, Kind("shapes file", may_refer=True)))


def checked_shapes(document: Document) -> ShapesFile:
    """Check what ``document`` says against the schema of a shapes file. Raises as `load_shapes`."""
    data, notices = without_vllm_only_keys(document)
    section = _validated(document, data)
    model, model_len, model_notices = _dimensions(document, section.model)
    cases = _cases(document, section)
    max_model_len = section.engine.max_model_len
    if model_len is not None and "engine" not in data:
        max_model_len = model_len
    longest = max(case.shape.max_kv_len for case in cases)
    if longest > max_model_len:
        if "engine" in data:
            raise InputError(
                f"{document.where(('engine', 'max_model_len'))}: max_model_len {max_model_len} "
                f"is below the longest KV length of the shapes, {longest}",
                remedy="raise max_model_len or leave out the longer shapes",
            )
        max_model_len = longest
    _check_dtypes(document, section.kv_cache_dtype)
    return ShapesFile(
        path=document.path,
        whole_model=model,
        models=_sharded(document, model, section.tensor_parallel_sizes),
        cases=cases,
        kv_cache_dtypes=tuple(dict.fromkeys(section.kv_cache_dtype)),
        modes=tuple(dict.fromkeys(section.engine.modes)),
        max_model_len=max_model_len,
        index_topk=section.index_topk,
        backends=tuple(dict.fromkeys(_listed_backends(section))),
        quantization=section.quantization,
        block_size=section.engine.block_size,
        max_cudagraph_capture_size=section.engine.max_cudagraph_capture_size,
        notices=(*notices, *model_notices),
    )


def _check_dtypes(document: Document, dtypes: list[str]) -> None:
    for dtype in dtypes:
        if dtype in KV_CACHE_DTYPES:
            continue
        where, valid = document.where(("kv_cache_dtype",)), ", ".join(KV_CACHE_DTYPES)
        if dtype in OTHER_KV_CACHE_DTYPES:
            what = f"{where}: no MLA backend is tuned for vLLM's KV cache dtype {dtype!r}"
            raise InputError(what, valid=valid)
        raise InputError(
            f"{where}: unknown KV cache dtype {_shortened(dtype)}",
            valid=valid,
            remedy=nearest_hint(dtype, KV_CACHE_DTYPES),
        )


def _listed_backends(section: ShapesSection) -> list[str]:
    listed = [section.backend] if section.backend else []
    return [*listed, *section.backends, *section.decode_backends]


def _validated(document: Document, data: dict[str, Any]) -> ShapesSection:
    try:
        return ShapesSection.model_validate(data)
    except ValidationError as error:
        raise _schema_error(document, error) from None


def _schema_error(document: Document, error: ValidationError) -> InputError:
    """Say the first of pydantic's findings in our own form, with the line it stands on."""
    # A union reports one finding per member; the deepest is about the one that was meant.
    detail = max(error.errors(), key=lambda item: len(item["loc"]))
    location = _without_union_members(detail["loc"])
    where, key = document.where(location), ".".join(map(str, location))
    if detail["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        return InputError(
            f"{where}: unknown key {key!r}",
            valid=", ".join(known),
            remedy=nearest_hint(str(location[-1]), known) or "remove it",
        )
    if detail["type"] == "missing":
        return InputError(f"{where}: {key!r} is missing")
    message = detail["msg"].removeprefix("Value error, ")
    return InputError(f"{where}: {key}: {message}, not {_shortened(detail['input'])}")


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _without_union_members(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Drop the names of types that pydantic puts among the keys where a union stands."""
    position = {"model": 1, "batch_specs": 2}.get(str(location[0]) if location else "")
    kept = [part for index, part in enumerate(location) if index != position]
    return tuple(kept[:-1] if len(kept) > 1 and kept[-1] == "[key]" else kept)


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "model": ModelSection,
        "engine": EngineSection,
        "grids": Grid,
        "batch_specs": WeightedSpec,
    }
    section = sections.get(str(location[0]), ShapesSection) if location else ShapesSection
    return list(section.model_fields)


def _dimensions(
    document: Document, model: str | ModelSection
) -> tuple[MlaDimensions, int | None, list[str]]:
    """Resolve ``model:`` to dimensions, a model length if it names one, and notices."""
    if isinstance(model, str):
        model = ModelSection(name=model)
        unknown_name_ok = False
    else:
        unknown_name_ok = model.num_q_heads is not None
    notices: list[str] = []
    known = PRESETS.get((model.name or "").lower())
    if known is None and model.name is not None and not unknown_name_ok:
        raise InputError(
            f"{document.where(('model',))}: unknown model {model.name!r}",
            valid=f"{', '.join(PRESETS)}, or a mapping that gives num_q_heads and the dimensions",
            remedy=nearest_hint(model.name.lower(), PRESETS),
        )
    names = MlaDimensions.__dataclass_fields__
    given = {name: getattr(model, name) for name in names if getattr(model, name) is not None}
    base = known or PRESETS["deepseek-v3"]
    if known is None:
        taken = sorted(set(names) - set(given))
        if taken:
            where = document.where(("model",))
            notices.append(f"{where}: model: {', '.join(taken)} not given, taken from deepseek-v3")
    dims = MlaDimensions(**{name: given.get(name, getattr(base, name)) for name in names})
    is_known = known is not None or model.kv_lora_rank is not None
    if notice := refuse_ordinary_attention(document, model, dims, is_known=is_known):
        notices.append(notice)
    return dims, model.max_model_len, notices


def _sharded(
    document: Document, model: MlaDimensions, sizes: list[int]
) -> tuple[MlaDimensions, ...]:
    try:
        return tuple(dict.fromkeys(model.sharded(size) for size in sizes))
    except InputError as error:
        where = document.where(("tensor_parallel_sizes",))
        raise InputError(f"{where}: {error.what}", valid=error.valid) from None


def _cases(document: Document, section: ShapesSection) -> tuple[Case, ...]:
    """Collect the shapes of all three forms, refusing a shape that stands twice."""
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
    if not cases:
        raise InputError(
            f"{document.path}: no batch shapes",
            valid="batch_specs: [32q1s1k, …], batch_spec_ranges: or grids:",
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
