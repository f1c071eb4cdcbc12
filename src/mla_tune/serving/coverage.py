"""Which tables are true for an engine that is not started yet, and what they leave open."""

__all__ = ["Coverage", "Part", "best_coverage", "parts_of", "plans_of"]

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mla_tune.environment import KERNEL_PACKAGES, installed_versions
from mla_tune.plan.plan import Plan
from mla_tune.registry import get_backend
from mla_tune.serving.compare_request import plan_key
from mla_tune.serving.engine import ServedEngine
from mla_tune.serving.engine_shapes import eager_shapes, tuned_mode
from mla_tune.session import Backend
from mla_tune.shapes import MlaDimensions, RequestGroup, Workload
from mla_tune.table.loading import LoadedTable, load_tables
from mla_tune.table.matching import EngineFacts, choose
from mla_tune.vllm.captures import captured_requests
from mla_tune.vllm.plugin.lookups import Lookups

Part = int | str
"""Of what an engine runs: a captured size in tokens, or a batch of an eager engine."""


@dataclass(frozen=True)
class Coverage:
    """What one table answers of what an engine runs.

    Attributes:
        table: its file; None where no table is true for the engine.
        answered: of the captured sizes in tokens, or of the batches of an eager engine.
        open: those without an answer.
    """

    table: Path | None
    answered: tuple[Part, ...]
    open: tuple[Part, ...]

    @property
    def is_complete(self) -> bool:
        return not self.open

    def __str__(self) -> str:
        what = "captured sizes" if isinstance((*self.answered, *self.open)[0], int) else "batches"
        return f"{len(self.answered)} of {len(self.answered) + len(self.open)} {what}"


def best_coverage(engine: ServedEngine, tables: Iterable[LoadedTable]) -> Coverage:
    """The coverage of the table that answers most, of those that are true for ``engine``."""
    mode = tuned_mode(engine)
    facts = _facts(engine)
    matching = [
        loaded
        for loaded in tables
        if loaded.mode == mode
        and loaded.table.header.backend == engine.backend
        and choose([loaded], facts)[0]
    ]
    found = [_coverage(engine, loaded) for loaded in matching]
    nothing = Coverage(None, (), _wanted(engine))
    return max(found, key=lambda each: len(each.answered), default=nothing)


def _facts(engine: ServedEngine) -> EngineFacts:
    assert engine.backend is not None, "a backend that is not known has no tables"
    backend = get_backend(engine.backend)
    model = tuple(
        (name, getattr(engine.model, name)) for name in MlaDimensions.__dataclass_fields__
    )
    return EngineFacts(
        backend=engine.backend,
        device_name=engine.device.name,
        compute_capability=engine.device.compute_capability,
        sm_count=engine.device.sm_count,
        model=model,
        kv_cache_dtype=engine.kv_cache_dtype,
        quantization=engine.quantization,
        block_size=engine.block_size or _own_block_size(backend),
        vllm=engine.vllm,
        max_model_len=engine.max_model_len,
        max_cudagraph_capture_size=max(engine.capture_sizes, default=0) * engine.decode_graphs,
        packages=tuple(installed_versions(*KERNEL_PACKAGES).items()),
        digests=tuple(backend.digests().items()),
        index_topk=engine.index_topk if backend.sparse else None,
    )


def _own_block_size(backend: Backend) -> int | None:
    return None if backend.blocks is None else backend.blocks.own


def _wanted(engine: ServedEngine) -> tuple[Part, ...]:
    if tuned_mode(engine) == "graph":
        return engine.capture_sizes
    return tuple(map(str, eager_shapes(engine)))


def parts_of(engine: ServedEngine, shapes: Iterable[str]) -> set[Part]:
    """The parts that have entries of these keys, whatever the entries say."""
    keys = set(shapes)
    if tuned_mode(engine) == "eager":
        return {part for part in _wanted(engine) if part in keys}
    groups = [Workload.parse(key).listed[0].shape.groups[0] for key in keys]
    batches = {(group.count, group.query_len) for group in groups}
    pairs = zip(engine.capture_sizes, _requests(engine), strict=True)
    return {size for size, requests in pairs if (requests, engine.query_len) in batches}


def _requests(engine: ServedEngine) -> list[int]:
    """Of the graph that is captured for each size."""
    most, query_len = engine.max_num_seqs, engine.query_len
    return [captured_requests([size], query_len, most)[0] for size in engine.capture_sizes]


def plans_of(engine: ServedEngine, table: Path) -> dict[str, Plan]:
    """What ``table`` says of each batch that ``engine`` runs, by `plan_key`; empty for defaults."""
    (loaded,), _ = load_tables(str(table))
    if loaded.mode == "eager":
        plans = {entry.shape: entry.plan for entry in loaded.table.entries}
        batches = [shape for shape in eager_shapes(engine) if str(shape) in plans]
        return {plan_key(shape.groups[0], "eager"): plans[str(shape)] for shape in batches}
    lookups, query_len = _graph_lookups(engine, loaded), engine.query_len
    groups = [RequestGroup(query_len, query_len, requests) for requests in _requests(engine)]
    choices = [(group, lookups.captured(group.count, query_len)) for group in groups]
    return {
        plan_key(group, "graph"): choice.plan
        for group, choice in choices
        if choice.outcome == "hit"
    }


def _coverage(engine: ServedEngine, loaded: LoadedTable) -> Coverage:
    wanted = _wanted(engine)
    if loaded.mode == "graph":
        answered = _answered_sizes(engine, loaded)
    else:
        answered = parts_of(engine, (entry.shape for entry in loaded.table.entries))
    return Coverage(
        loaded.path,
        tuple(part for part in wanted if part in answered),
        tuple(part for part in wanted if part not in answered),
    )


def _answered_sizes(engine: ServedEngine, loaded: LoadedTable) -> set[Part]:
    lookups = _graph_lookups(engine, loaded)
    return {
        size
        for size, requests in zip(engine.capture_sizes, _requests(engine), strict=True)
        if lookups.captured(requests, engine.query_len).outcome == "hit"
    }


def _graph_lookups(engine: ServedEngine, loaded: LoadedTable) -> Lookups:
    """As the plugin will have them.

    It also takes splits that were measured at another max_model_len, where vLLM's own rule proves
    them: asking that rule would import vLLM.
    """
    is_alike = loaded.table.header.engine.max_model_len == engine.max_model_len
    tokens = engine.kv_cache_tokens

    def usable(plan: Plan) -> bool:
        return is_alike or "num_kv_splits" not in plan

    def reach(requests: int) -> int:
        return min(engine.max_model_len, tokens // requests if tokens else engine.max_model_len)

    return Lookups(loaded.table, None, graph_usable=usable, reach=reach)
