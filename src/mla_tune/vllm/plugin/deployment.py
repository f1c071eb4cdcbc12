"""One backend in one engine: its tables, what they say, and what has come of it."""

__all__ = ["Deployment", "deployment_for", "say_untuned", "tables_for"]

import functools
import logging
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from mla_tune.plan.launch import launch_of
from mla_tune.plan.plan import Plan
from mla_tune.registry import BACKENDS
from mla_tune.table.loading import LoadedTable
from mla_tune.table.matching import EngineFacts, choose, told_apart
from mla_tune.traffic.writer import TrafficWriter
from mla_tune.vllm.log import logger
from mla_tune.vllm.plugin.agreement import disagreement
from mla_tune.vllm.plugin.carry_over import splits_carry_over
from mla_tune.vllm.plugin.choice import Choice
from mla_tune.vllm.plugin.counts import Counts
from mla_tune.vllm.plugin.coverage import coverage
from mla_tune.vllm.plugin.engine import engine_facts, refusal
from mla_tune.vllm.plugin.layers import ServedLayers
from mla_tune.vllm.plugin.lookups import Lookups
from mla_tune.vllm.plugin.metrics import labels_of
from mla_tune.vllm.plugin.reach import most_kv_tokens
from mla_tune.vllm.plugin.state import once, process_state
from mla_tune.vllm.plugin.statement import failed, set_up

NO_EAGER = "eager tables are not used with decode context parallelism, only those of graphs"


class Deployment:
    """What the builders of one backend share.

    Attributes:
        facts: what the engine is.
        lookups: None when no table is true for it; vLLM then runs as without the plugin.
        planned: the choice for every decode graph that is going to be captured, by requests and
            query length.
        traffic_writer: None unless ``MLA_TUNE_RECORD`` is set.

    Args:
        knobs: those that the backend's builder sets.
        most_kv_tokens: that the KV cache can hold; None where that is not known.
    """

    def __init__(
        self,
        facts: EngineFacts,
        knobs: Collection[str],
        tables: dict[str, LoadedTable],
        captures: tuple[tuple[int, int], ...],
        most_kv_tokens: int | None = None,
    ) -> None:
        self.facts = facts
        self.most_kv_tokens = most_kv_tokens
        self._knobs = knobs
        self._left_out: set[Plan] = set()
        self.counts = Counts(facts.backend)
        graph, eager = tables.get("graph"), tables.get("eager")
        self.lookups: Lookups | None = None
        self.planned: dict[tuple[int, int], Choice] = {}
        if tables:
            self.lookups = Lookups(
                graph.table if graph else None,
                eager.table if eager else None,
                graph_usable=lambda plan: _graph_usable(plan, graph, facts),
                applicable=self._applicable,
                reach=self.reach,
                unguarded=os.environ.get("MLA_TUNE_UNGUARDED") == "1",
            )
            self.planned = {key: self.lookups.captured(*key) for key in captures}
        record = os.environ.get("MLA_TUNE_RECORD")
        self.traffic_writer = TrafficWriter(Path(record), facts) if record else None

    def reach(self, requests: int) -> int:
        """The longest KV length, in tokens, that so many requests can all have."""
        longest = self.facts.max_model_len
        if self.most_kv_tokens is None:
            return longest
        return min(longest, self.most_kv_tokens // requests)

    def leave_out(self, launch: Plan, error: Exception) -> None:
        """Leave out the plans with ``launch`` from here on, and say that ``error`` is why."""
        self._left_out.add(launch)
        self.counts.fallbacks += 1
        once(
            logging.ERROR,
            f"mla-tune: {self.facts.backend}: the launch {launch} does not run here "
            f"({type(error).__name__}: {error}); its entries are left out",
        )
        if self.lookups is not None:
            self.lookups.steps.forget()
            self.planned = {key: self.lookups.captured(*key) for key in self.planned}

    def _applicable(self, plan: Plan) -> bool:
        """Whether all knobs of ``plan`` can be set; says so where one cannot."""
        if self._left_out and launch_of(plan) in self._left_out:
            return False
        unknown = [knob for knob in plan if knob not in self._knobs]
        if not unknown:
            return True
        self.counts.fallbacks += 1
        once(
            logging.WARNING,
            f"mla-tune: {self.facts.backend}: tables set {', '.join(unknown)}, which this plugin "
            "cannot set; the entries that ask for it are left out",
        )
        return False

    def goes_on_untuned(self, error: Exception) -> None:
        """Count and log that our code has failed for one of its builders."""
        self.counts.fallbacks += 1
        say_untuned(self.facts.backend, error)

    def leave_untuned(self) -> None:
        """Forget the tables, before anything of them has been applied."""
        self.lookups, self.planned = None, {}


def say_untuned(backend: str, error: Exception) -> None:
    """Log that ``backend`` goes on as vLLM would after ``error``, with where it came from."""
    once(
        logging.ERROR,
        f"mla-tune: {backend} goes on untuned after {type(error).__name__}: {error}",
        exc_info=error,
    )


def _graph_usable(plan: Plan, graph: LoadedTable | None, facts: EngineFacts) -> bool:
    """Whether a plan that beat the table's frozen default also beats this engine's."""
    splits = plan.number("num_kv_splits")
    if splits is None or graph is None:
        return True
    return splits_carry_over(splits, graph.table.header, facts)


def tables_for(facts: EngineFacts, vllm_config: Any) -> tuple[dict[str, LoadedTable], str | None]:
    """The tables that are true for an engine, by mode, and why there is none for a mode."""
    if refused := refusal(vllm_config, sparse=BACKENDS[facts.backend].sparse):
        return {}, refused
    tables = [t for t in process_state().tables if t.table.header.backend == facts.backend]
    if facts.context_parallel == 1:
        return choose(tables, facts)
    # A prefill gathers its context from all ranks, and an eager step may hold one.
    graphs = [table for table in tables if table.mode == "graph"]
    chosen, reason = choose(graphs, facts)
    return chosen, reason or (NO_EAGER if len(graphs) < len(tables) else None)


def deployment_for(
    backend: str,
    knobs: Collection[str],
    vllm_config: Any,
    layers: Callable[[], ServedLayers],
    captures: Callable[[], tuple[tuple[int, int], ...]],
) -> Deployment:
    """The deployment of ``backend`` in this engine, made and announced once a process.

    Nothing of a table is applied before this returns: the first call settles with the other ranks
    of the engine whether anything is. ``knobs`` are those that the caller sets,
    ``layers`` gives what the backend serves, and ``captures`` the (requests, query length) of the
    decode graphs to come.
    """
    try:
        facts = engine_facts(backend, vllm_config, layers())
        planned = captures()
        make = functools.partial(_made, facts, knobs, vllm_config, planned)
        found: Deployment = process_state().deployment((facts, planned), make)
        return found
    except Exception as error:
        # The other ranks wait for this one.
        disagreement(vllm_config, functools.partial(failed, error))
        raise


def _made(
    facts: EngineFacts,
    knobs: Collection[str],
    vllm_config: Any,
    captures: tuple[tuple[int, int], ...],
) -> Deployment:
    tables, reason = tables_for(facts, vllm_config)
    most = most_kv_tokens(vllm_config, facts) if "graph" in tables else None
    deployment = Deployment(facts, knobs, tables, captures, most)
    say = functools.partial(set_up, facts, process_state().tables, tables, deployment.planned)
    unlike = disagreement(vllm_config, say)
    if reason is not None:
        extent = "runs untuned in part" if tables else "runs untuned"
        once(logging.WARNING, f"mla-tune: {facts.backend} {extent}: {reason}")
    if unlike is None:
        _announce(deployment, tables)
    else:
        once(logging.ERROR, f"mla-tune: all ranks run untuned, because they differ: {unlike}")
        deployment.leave_untuned()
    _export(deployment.counts, vllm_config)
    return deployment


def _export(counts: Counts, vllm_config: Any) -> None:
    """Have vLLM's ``/metrics`` say what ``counts`` does, where it can."""
    try:
        metrics = process_state().metrics
        if metrics is not None:
            metrics.follow(counts, labels_of(vllm_config))
    except Exception as error:
        once(logging.WARNING, f"mla-tune: no counts in /metrics: {type(error).__name__}: {error}")


def _announce(deployment: Deployment, tables: dict[str, LoadedTable]) -> None:
    facts = deployment.facts
    for loaded in tables.values():
        note = told_apart(loaded.table, facts)
        logger.info("mla-tune: %s uses %s%s", facts.backend, loaded, note)
    if deployment.lookups is not None and deployment.planned:
        tabled, most = deployment.lookups.tabled, deployment.most_kv_tokens
        level, told = coverage(deployment.planned, tabled, most)
        once(level, f"mla-tune: {facts.backend}: {told}")
