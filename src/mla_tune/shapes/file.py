"""The shapes file: what to tune for. Our own files and vLLM's attention-benchmark configs."""

__all__ = ["ShapesFile", "checked_shapes", "load_shapes"]

from dataclasses import dataclass, field
from pathlib import Path

from mla_tune.errors import InputError, nearest_hint
from mla_tune.files.document import Document, Kind
from mla_tune.quantization import UNQUANTIZED
from mla_tune.shapes.cases import listed_cases
from mla_tune.shapes.dimensions import model_of_file, sharded
from mla_tune.shapes.graph import GraphShapes, graph_shapes
from mla_tune.shapes.model import MlaDimensions
from mla_tune.shapes.presets import USUAL_INDEX_TOPK
from mla_tune.shapes.ragged import RaggedMix
from mla_tune.shapes.ragged_specs import ragged_specs
from mla_tune.shapes.schema_errors import shortened, validated
from mla_tune.shapes.sections import KV_CACHE_DTYPES, OTHER_KV_CACHE_DTYPES, ShapesSection
from mla_tune.shapes.vllm_benchmark import without_vllm_only_keys
from mla_tune.shapes.workload import Case


@dataclass(frozen=True)
class ShapesFile:
    """A shapes file, read and checked.

    ``models`` holds the dimensions of ``whole_model`` once per tensor-parallel size; ``notices``
    names what the file says that does not apply here, one line each. A ``block_size`` or
    ``max_cudagraph_capture_size`` of None is vLLM's own. ``graph`` is what is tuned in graph mode;
    None for ``cases``, the listed shapes. ``ragged`` says how much of it is ragged. ``max_tokens``
    bounds the KV tokens of a case.
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
    graph: GraphShapes | None = None
    ragged: RaggedMix = field(default_factory=RaggedMix)
    max_tokens: int | None = None
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
    section = validated(document, data)
    model = model_of_file(document, section.model)
    graph = graph_shapes(document, section.graph)
    cases = _listed(document, section)
    specs = ragged_specs(document, section)
    longest = max(
        [case.shape.max_kv_len for case in cases]
        + [spec.longest_kv for spec in specs]
        + [graph.longest_kv if graph is not None else 0]
    )
    if "engine" in data:
        max_model_len = _admitting(document, section.engine.max_model_len, longest)
    else:
        max_model_len = max(model.max_model_len or section.engine.max_model_len, longest)
    _check_dtypes(document, section.kv_cache_dtype)
    return ShapesFile(
        path=document.path,
        whole_model=model.dimensions,
        models=sharded(document, model.dimensions, section.tensor_parallel_sizes),
        cases=cases,
        kv_cache_dtypes=tuple(dict.fromkeys(section.kv_cache_dtype)),
        modes=tuple(dict.fromkeys(section.engine.modes)),
        max_model_len=max_model_len,
        index_topk=section.index_topk or model.index_topk or USUAL_INDEX_TOPK,
        backends=tuple(dict.fromkeys(_listed_backends(section))),
        quantization=section.quantization,
        block_size=section.engine.block_size,
        max_cudagraph_capture_size=section.engine.max_cudagraph_capture_size,
        graph=graph,
        ragged=RaggedMix(section.engine.ragged.share, section.engine.ragged.sigma, specs),
        notices=(*notices, *model.notices),
    )


def _listed(document: Document, section: ShapesSection) -> tuple[Case, ...]:
    """The listed shapes, of which a file for graphs alone may have none."""
    modes = section.engine.modes
    if section.eager is not None and section.graph is None and "graph" in modes:
        raise InputError(
            f"{document.where(('eager',))}: eager: is given, and graph mode without graph:",
            remedy="add graph:, or leave graph out of engine: {modes: …}",
        )
    if section.graph is None:
        return listed_cases(document, section)
    if "graph" not in modes:
        raise InputError(
            f"{document.where(('graph',))}: graph: is given, but only {', '.join(modes)} is tuned",
            remedy="add engine: {modes: graph}, or modes: [graph, eager]",
        )
    listed = (section.batch_specs, section.batch_spec_ranges, section.grids, section.eager)
    return listed_cases(document, section) if "eager" in modes or any(listed) else ()


def _admitting(document: Document, max_model_len: int, longest: int) -> int:
    """``max_model_len`` as the file gives it; refused below the longest KV length of its shapes."""
    if longest > max_model_len:
        raise InputError(
            f"{document.where(('engine', 'max_model_len'))}: max_model_len {max_model_len} "
            f"is below the longest KV length of the shapes, {longest}",
            remedy="raise max_model_len or leave out the longer shapes",
        )
    return max_model_len


def _check_dtypes(document: Document, dtypes: list[str]) -> None:
    for dtype in dtypes:
        if dtype in KV_CACHE_DTYPES:
            continue
        where, valid = document.where(("kv_cache_dtype",)), ", ".join(KV_CACHE_DTYPES)
        if dtype in OTHER_KV_CACHE_DTYPES:
            what = f"{where}: no MLA backend is tuned for vLLM's KV cache dtype {dtype!r}"
            raise InputError(what, valid=valid)
        raise InputError(
            f"{where}: unknown KV cache dtype {shortened(dtype)}",
            valid=valid,
            remedy=nearest_hint(dtype, KV_CACHE_DTYPES),
        )


def _listed_backends(section: ShapesSection) -> list[str]:
    listed = [section.backend] if section.backend else []
    return [*listed, *section.backends, *section.decode_backends]
