"""Put our subclasses where vLLM looks its backends up."""

__all__ = ["register_backends"]

import logging
import os
from collections.abc import Iterable

from mla_tune.registry import BACKENDS
from mla_tune.table.loading import LoadedTable, load_tables
from mla_tune.vllm.log import logger
from mla_tune.vllm.plugin.resolve import path_of, tuned_backends
from mla_tune.vllm.plugin.state import once, process_state


def register_backends(setting: str) -> None:
    """Load the tables of ``setting`` and override the backends they are for."""
    state = process_state()
    if state.setting != setting:
        tables, problems = load_tables(setting)
        for problem in problems:
            once(logging.ERROR, f"mla-tune: not used: {problem}")
        state.tables = _as_asked(tables)
        logger.info("mla-tune: %d tables loaded from MLA_TUNE_TABLES=%s", len(tables), setting)
        state.setting = setting
    recording = bool(os.environ.get("MLA_TUNE_RECORD"))
    _override_backends(state.tables, every=recording)


def _as_asked(tables: list[LoadedTable]) -> list[LoadedTable]:
    """Without what was never proven, unless it is asked for.

    That is a plan that was never compared with the default, and the tables of sparse backends: a
    whole engine was slower with them while its host was busy (docs/h200.md).
    """
    asked = os.environ.get("MLA_TUNE_UNPROVEN") == "1"
    sparse = sorted({table.table.header.backend for table in tables if _is_sparse(table)})
    if sparse and not asked:
        once(
            logging.WARNING,
            f"mla-tune: tables for {', '.join(sparse)} are left alone: with them an engine "
            "was slower while its host was busy; MLA_TUNE_UNPROVEN=1 applies them",
        )
        tables = [table for table in tables if not _is_sparse(table)]
    count = sum(table.num_unproven for table in tables)
    if not count:
        return tables
    if asked:
        once(logging.WARNING, f"mla-tune: MLA_TUNE_UNPROVEN=1: {count} unproven plans may act")
        return [table.with_unproven() for table in tables]
    once(
        logging.INFO,
        f"mla-tune: {count} unproven plans are left alone; MLA_TUNE_UNPROVEN=1 applies them",
    )
    return tables


def _is_sparse(loaded: LoadedTable) -> bool:
    name = loaded.table.header.backend
    return name in BACKENDS and BACKENDS[name].sparse and name in tuned_backends()


def _override_backends(tables: Iterable[LoadedTable], *, every: bool) -> None:
    """Override the backends that have tables; all of them, to record what they serve."""
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    named, ours = {table.table.header.backend for table in tables}, tuned_backends()
    for name in sorted(named | ours if every else named):
        member = AttentionBackendEnum.__members__.get(name)
        if name not in ours:
            once(logging.WARNING, f"mla-tune: tables for {name} do not act in an engine")
        elif member is None:
            once(logging.INFO, f"mla-tune: this vLLM has no {name}")
        elif member.is_overridden() and member.get_path() != path_of(name):
            once(
                logging.WARNING,
                f"mla-tune: {name} is already overridden by {member.get_path()}; left as it is",
            )
        else:
            register_backend(member, path_of(name))
