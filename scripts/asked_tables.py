"""Tables that ask for given plans, true for this machine: no measurement is behind them."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from mla_tune.environment import Environment
from mla_tune.plan.plan import Plan
from mla_tune.registry import BACKENDS
from mla_tune.shapes import MlaDimensions
from mla_tune.shapes.presets import USUAL_INDEX_TOPK
from mla_tune.table import Entry, Header, merge


def write_tables(
    asked: Mapping[tuple[str, str], Mapping[str, Plan]],
    environment: Environment,
    model: MlaDimensions,
    max_model_len: int,
) -> Path:
    """Write a table for each backend and engine mode; ``asked`` gives their plans by batch spec.

    Graphs' entries hold wherever the engine stands, so that they act.

    Returns the folder, to set ``MLA_TUNE_TABLES`` to.
    """
    folder = Path(tempfile.mkdtemp(prefix="mla-tune-asked-"))
    for (backend, mode), plans in asked.items():
        topk = USUAL_INDEX_TOPK if BACKENDS[backend].sparse else None
        header = Header.of(environment, backend, model, "auto", mode, max_model_len, topk)
        guarded = {"holds_to": max_model_len, "holds_ragged": True} if mode == "graph" else {}
        figures = {"latency_us": 1.0, "default_us": 2.0, **guarded}
        entries = [
            Entry.model_validate({"shape": spec, "plan": plan, **figures})
            for spec, plan in plans.items()
        ]
        merge(folder / f"{backend}-{mode}.yaml", header, entries)
    return folder
