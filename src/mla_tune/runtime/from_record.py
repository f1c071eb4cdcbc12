"""From what an engine has served to what to tune next."""

__all__ = ["shapes_from_record"]

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mla_tune.errors import InputError
from mla_tune.runtime.recorder import RECORD_FORMAT, record_files
from mla_tune.runtime.tables import LoadedTable
from mla_tune.shapes import BatchShape, RequestGroup
from mla_tune.table import Table

# More shapes than this are noise at the end of a long tail, and a night is only so long.
MOST_SHAPES = 200

# What all files of one record have to agree on.
_ENGINE = ("backend", "model", "kv_cache_dtype", "device", "vllm", "max_model_len")


@dataclass(frozen=True)
class _Served:
    """A kind of step: how it ran, its shape, and how often it was served."""

    mode: str
    batch: int
    query_len: int
    kv_len: int

    def shape(self) -> BatchShape:
        group = RequestGroup(self.query_len, max(self.kv_len, self.query_len), self.batch)
        return BatchShape.of([group])


def shapes_from_record(path: Path, tables: Iterable[Path] = ()) -> str:
    """Write a weighted shapes file of what ``MLA_TUNE_RECORD=path`` has recorded.

    Args:
        path: the value of the variable; the files of all its processes are merged.
        tables: tables to look the shapes up in. Without any, the record's own hits and misses
            count.

    Returns:
        The text of the shapes file: shapes that no table answers come first, and within both
        parts those served most. KV lengths are rounded to a power of two, weights are steps.

    Raises:
        InputError: no record there, one that cannot be read, or records of different engines.
    """
    documents = [_read(file) for file in record_files(path)]
    if not documents:
        raise InputError(
            f"there is no record {path} (nor {path.name}.*.json beside it)",
            remedy="serve with MLA_TUNE_TABLES and MLA_TUNE_RECORD set; files follow the first "
            "half minute of traffic",
        )
    engine = _common_engine(path, documents)
    steps: Counter[_Served] = Counter()
    missed: Counter[_Served] = Counter()
    for step in (step for document in documents for step in document["steps"]):
        served = _Served(step["mode"], step["batch"], step["query_len"], _rounded(step["kv_len"]))
        steps[served] += step["count"]
        missed[served] += step["count"] if step["outcome"] != "hit" else 0
    loaded = [LoadedTable(table, Table.load(table)) for table in tables]
    if loaded:
        missed = Counter({s: steps[s] for s in steps if not _answered(s, loaded, engine)})
    return _text(path, engine, steps, missed)


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"record {file} cannot be read: {error}") from None
    if not isinstance(document, dict) or document.get("format") != RECORD_FORMAT:
        raise InputError(
            f"{file} is not a record of served shapes", valid=f"format {RECORD_FORMAT}"
        )
    return document


def _common_engine(path: Path, documents: list[dict[str, Any]]) -> dict[str, Any]:
    first = documents[0]
    for document in documents[1:]:
        for name in _ENGINE:
            if document[name] != first[name]:
                raise InputError(
                    f"the records of {path} are of different engines: {name} is {first[name]} "
                    f"and {document[name]}",
                    remedy="record each engine to a file of its own, or remove the old files",
                )
    return {name: first[name] for name in _ENGINE}


def _rounded(kv_len: int) -> int:
    """The nearest power of two, by ratio: within the lookup's bound of everything it stands for."""
    low = 1 << (kv_len.bit_length() - 1)
    return low if kv_len * kv_len <= 2 * low * low else 2 * low


def _answered(served: _Served, tables: list[LoadedTable], engine: dict[str, Any]) -> bool:
    shape = served.shape()
    return any(
        loaded.table.lookup_shape(shape).is_hit
        for loaded in tables
        if loaded.mode == served.mode and loaded.table.header.backend == engine["backend"]
    )


def _text(
    path: Path, engine: dict[str, Any], steps: Counter[_Served], missed: Counter[_Served]
) -> str:
    by_shape: Counter[BatchShape] = Counter()
    missed_by_shape: Counter[BatchShape] = Counter()
    for served, count in steps.items():
        by_shape[served.shape()] += count
        missed_by_shape[served.shape()] += missed[served]
    ordered = sorted(
        by_shape, key=lambda shape: (-missed_by_shape[shape], -by_shape[shape], str(shape))
    )
    kept = ordered[:MOST_SHAPES]
    modes = sorted({served.mode for served in steps}, reverse=True)
    head = {
        "model": engine["model"],
        "kv_cache_dtype": engine["kv_cache_dtype"],
        "engine": {"modes": modes, "max_model_len": engine["max_model_len"]},
        "backends": [engine["backend"]],
    }
    lines = [
        f"# Served by {engine['backend']} of vLLM {engine['vllm']} on {engine['device']}: "
        f"{sum(by_shape.values())} steps, from {path.name}.",
        yaml.safe_dump(head, sort_keys=False, default_flow_style=None).rstrip(),
        "batch_specs:",
    ]
    for part, title in ((True, "without an entry"), (False, "with an entry")):
        shapes = [shape for shape in kept if (missed_by_shape[shape] > 0) is part]
        if shapes:
            lines.append(f"  # {title}, most served first; weights are steps")
            lines += [f"  - {{spec: {shape}, weight: {by_shape[shape]}}}" for shape in shapes]
    if len(ordered) > len(kept):
        lines.append(f"  # {len(ordered) - len(kept)} rarer shapes are left out")
    return "\n".join(lines) + "\n"
