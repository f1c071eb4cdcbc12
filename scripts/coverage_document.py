#!/usr/bin/env python3
"""Write docs/coverage.md: which of the known models the shipped tables answer, and how far.

    python scripts/coverage_document.py

Run it after a table has been added to those that a wheel holds (pyproject.toml) or taken out.
"""

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mla_tune.registry import BACKENDS
from mla_tune.shapes import MlaDimensions, Workload, format_size
from mla_tune.shapes.presets import PRESETS, SPARSE_PRESETS
from mla_tune.table import Entry, Table
from mla_tune.vllm.plugin.choice import Choice
from mla_tune.vllm.plugin.lookups import Lookups

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "coverage.md"
TENSOR_PARALLEL_SIZES = (1, 2, 4, 8)

METHOD = """\
# Which models the shipped tables answer

Written by `scripts/coverage_document.py` from the tables that a wheel holds and the models in
`src/mla_tune/shapes/presets.py`.

A table is for one GPU, for the heads that it holds of a model and for MLA dimensions. A number
of heads below is a link where there are such tables, with the GPUs that they are for; a dash is
where the heads do not divide. Sparse models (those with a top-k) are served by sparse backends,
others by dense ones. A table is used on the minor release of vLLM that it was measured with;
one with a + holds digests of its kernels and is used on every release that runs the same ones
([which tables are used](deploying.md#which-tables-are-used))."""

LEGEND = """\
## What the columns say

*Steps*: graphs are decode steps that vLLM replays, eager all others. *Shapes* are those that
the table answers for, *plans* those where it names another plan than vLLM's own, which is the
answer for the rest. *Act*: the plans that an engine uses. Under graphs these are the ones that
were compared on ragged batches too, or are for a single request; the others are used with
`MLA_TUNE_UNGUARDED=1` alone. In sparse backends they are those whose threshold is not above
vLLM's own, with `MLA_TUNE_UNPROVEN=1` alone. *Up to*: the longest context, in tokens, that
these plans were compared at; where none acts, that the table was measured at. A plan for more
requests may have been compared less far, as their contexts share one KV cache: *in all* is how
many tokens a cache may hold for every one of these plans to act whatever `max_model_len` is,
up to the longest."""


@dataclass(frozen=True)
class Served:
    """What a table is asked for on one GPU: dimensions with its heads, and the top-k if sparse."""

    dimensions: MlaDimensions
    topk: int | None

    def is_answered_by(self, table: Table) -> bool:
        header = table.header
        model = {name: getattr(self.dimensions, name) for name in header.model}
        return header.model == model and header.engine.index_topk == self.topk

    @property
    def title(self) -> str:
        told = f"{self.dimensions.num_q_heads} heads, {_written(self.dimensions)}"
        return told if self.topk is None else f"{told}, top-k {self.topk}"


def main() -> None:
    DOCUMENT.write_text(document(shipped()), encoding="utf-8")


def shipped() -> list[Table]:
    """The tables that a wheel holds."""
    return list(map(Table.load, shipped_paths()))


def shipped_paths() -> list[Path]:
    """The tables that a wheel holds; a trial run's may lie in the same folder."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    return [ROOT / path for path in listed]


def document(tables: Sequence[Table]) -> str:
    """The whole of docs/coverage.md."""
    answered = answered_by(tables)
    sections = [_section(served, answered[served]) for served in sorted(answered, key=_order)]
    return "\n\n".join([METHOD, counted(answered), _models(answered), LEGEND, *sections]) + "\n"


def answered_by(tables: Sequence[Table]) -> dict[Served, list[Table]]:
    """What is asked for by some model, with the tables that answer it; none without a table."""
    asked = {
        served: [table for table in tables if served.is_answered_by(table)]
        for served in _all_served()
    }
    return {served: found for served, found in asked.items() if found}


def _all_served() -> set[Served]:
    return {
        served
        for name in PRESETS
        for size in TENSOR_PARALLEL_SIZES
        if (served := _served(name, size)) is not None
    }


def _served(name: str, size: int) -> Served | None:
    """What one of ``size`` GPUs holds of a model; None if its heads do not divide."""
    model = PRESETS[name]
    if model.num_q_heads % size:
        return None
    return Served(model.sharded(size), SPARSE_PRESETS.get(name))


def _order(served: Served) -> tuple[bool, int, str]:
    return served.topk is not None, served.dimensions.num_q_heads, served.title


def counted(answered: dict[Served, list[Table]], listed: str = "below") -> str:
    """How many pairs of a model and a tensor-parallel size a table answers; where they stand."""
    pairs = [_served(name, size) for name in PRESETS for size in TENSOR_PARALLEL_SIZES]
    held = [served for served in pairs if served is not None]
    gpus = sorted({gpu for tables in answered.values() for gpu in _gpus(tables)})
    counts = [
        f"{sum(gpu in _gpus(answered.get(served, ())) for served in held)} on {gpu}" for gpu in gpus
    ]
    return (
        f"Of the {len(held)} pairs of a model and a tensor-parallel size {listed}, a table answers "
        f"{' and '.join(counts) or 'none'}."
    )


def _models(answered: dict[Served, list[Table]]) -> str:
    """Models by the tensor-parallel size; those that are alike to a table share a row."""
    alike: dict[tuple[MlaDimensions, int | None], list[str]] = {}
    for name, model in PRESETS.items():
        alike.setdefault((model, SPARSE_PRESETS.get(name)), []).append(name)
    sizes = [f"TP {size}" for size in TENSOR_PARALLEL_SIZES]
    rows = [
        [
            ", ".join(names),
            _written(model) + ("" if topk is None else f", top-k {topk}"),
            *(_heads(_served(names[0], size), answered) for size in TENSOR_PARALLEL_SIZES),
        ]
        for (model, topk), names in alike.items()
    ]
    return _rows(["models", "dimensions", *sizes], rows)


def _heads(served: Served | None, answered: dict[Served, list[Table]]) -> str:
    if served is None:
        return "–"
    heads = str(served.dimensions.num_q_heads)
    if served not in answered:
        return heads
    return f"[{heads}](#{_anchor(served.title)}): {', '.join(_gpus(answered[served]))}"


def _section(served: Served, tables: Iterable[Table]) -> str:
    heads = ["GPU", "vLLM", "backend", "KV dtype", "steps", "shapes", "plans", "act", "up to"]
    rows = sorted(_row(table) for table in tables)
    return f"## {served.title}\n\n{_rows(heads, rows)}"


def _row(table: Table) -> list[str]:
    header = table.header
    is_graph = header.engine.mode == "graph"
    acting, up_to = graphs_in_use(table) if is_graph else eager_in_use(table)
    return [
        gpu_of(table),
        f"{header.software['vllm']}{' +' if header.software_digests else ''}",
        header.backend,
        header.kv_cache_dtype,
        "graphs" if is_graph else "eager",
        str(len(table.entries)),
        str(sum(bool(entry.plan) for entry in table.entries)),
        str(acting),
        up_to,
    ]


def graphs_in_use(table: Table) -> tuple[int, str]:
    """Plans that an engine captures, and up to where, as the plugin looks them up."""
    lookups = Lookups(table, None, reach=lambda _: 1)
    choices = {key: lookups.captured(*key) for key in lookups.tabled}
    acting = {key: choice for key, choice in choices.items() if choice.plan}
    if not acting:
        return 0, format_size(max(map(_longest, table.entries)))
    least, longest = (pick(map(_holds_to, acting.values())) for pick in (min, max))
    if least == longest:
        return len(acting), format_size(longest)
    told = f"{format_size(least)} to {format_size(longest)}"
    # An engine whose KV cache holds no more for so many requests does not get beyond.
    holds = [(batch, _holds_to(choice)) for (batch, _), choice in acting.items()]
    cache = min(batch * kv_len for batch, kv_len in holds if kv_len < longest)
    return len(acting), f"{told} ({cache:,} in all)" if cache >= longest else told


def _holds_to(choice: Choice) -> int:
    assert choice.longest_kv is not None, "every choice of a graph table has one"
    return choice.longest_kv


def eager_in_use(table: Table) -> tuple[int, str]:
    """Plans that eager steps use, and the longest context; between them a model may answer."""
    plans = [entry for entry in table.entries if entry.plan]
    is_sparse = BACKENDS[table.header.backend].sparse
    acting = [entry for entry in plans if not (is_sparse and _rises(entry))]
    longest = format_size(max(map(_longest, acting or table.entries)))
    return len(acting), f"{longest}, and between by a model" if table.between else longest


def _rises(entry: Entry) -> bool:
    """Whether the plan's threshold is above vLLM's own."""
    knob = "reorder_batch_threshold"
    return (entry.plan.number(knob) or 0) > (entry.default_plan.number(knob) or 0)


def _longest(entry: Entry) -> int:
    return entry.holds_to or max(shape.max_kv_len for shape in Workload.parse(entry.shape).shapes)


def _gpus(tables: Iterable[Table]) -> list[str]:
    return sorted({gpu_of(table) for table in tables})


def gpu_of(table: Table) -> str:
    return table.header.device.name.removeprefix("NVIDIA ")


def _written(model: MlaDimensions) -> str:
    parts = (model.kv_lora_rank, model.qk_nope_head_dim, model.qk_rope_head_dim, model.v_head_dim)
    return "/".join(map(str, parts))


def _anchor(title: str) -> str:
    """What a heading is linked by."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _rows(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
