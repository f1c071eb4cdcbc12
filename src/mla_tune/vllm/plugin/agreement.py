"""Whether all ranks of an engine were set up alike, settled once at start.

An engine's ranks compute one batch together. Where one of them has other tables, has none, or
failed to set up, what was measured is true for none of them: each all-reduce waits for the slowest.
So they compare what they are going to apply, and all of them apply it or none does.

They do so through the key-value store of their process group, not in a collective: a rank that
never comes here, because the plugin is not loaded in it, must not hang the others, and ranks may
come here a different number of times. Each writes down what it says under its rank, and the first
that knows the outcome, or has waited long enough, writes the decision. That holds for every rank,
late ones too.
"""

__all__ = ["Ranks", "disagreement", "ranks_of", "settled"]

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mla_tune.vllm.compat.parallel import prefill_context_parallel
from mla_tune.vllm.log import logger

# Ranks come within moments of each other, unless one compiles its pipeline stage for longer. Less
# than any of vLLM's own time-outs at start.
SECONDS_TO_WAIT = 120.0
SECONDS_UNTIL_TOLD = 5.0
ALIKE, UNLIKE = "alike", "unlike"

# What a rank is going to apply, by the names of its parts.
Statement = Mapping[str, str]


@dataclass(frozen=True)
class Ranks:
    """The ranks that have to agree.

    Attributes:
        store: a ``torch.distributed.Store`` of all of them.
        rank: this one.
        peers: all of them, this one too.
    """

    store: Any
    rank: int
    peers: range


def ranks_of(vllm_config: Any) -> Ranks | None:
    """The ranks that compute the batches of this one; None if there are no others.

    Data-parallel replicas have batches of their own, and are not among them.
    """
    parallel = vllm_config.parallel_config
    # vLLM lays its ranks out as external DP x DP x PP x PCP x TP (0.20.2 to 0.33.0).
    stage = int(parallel.tensor_parallel_size)
    stage *= prefill_context_parallel(parallel)
    count = stage * int(parallel.pipeline_parallel_size)
    # A stage of a hybrid model may be without an MLA layer, and then says nothing.
    if getattr(vllm_config.model_config, "is_hybrid", False):
        count = stage
    if count == 1:
        return None
    import torch.distributed
    from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

    rank = torch.distributed.get_rank()
    first = rank - rank % count
    # There is no public name for it. Under a prefix of our own, by the first of those concerned.
    store = PrefixStore(f"mla_tune/{first}", _get_default_store())
    return Ranks(store, rank, range(first, first + count))


def disagreement(vllm_config: Any, say: Callable[[], Statement]) -> str | None:
    """Why the ranks of this engine run untuned, or None when there is no reason to.

    ``say`` is called if there are other ranks and nothing has been decided. Never raises: who
    cannot ask does not apply anything, and neither do those who wait for it.
    """
    try:
        ranks = ranks_of(vllm_config)
        return None if ranks is None else settled(ranks, say)
    except Exception as error:
        return f"this rank cannot ask the others: {type(error).__name__}: {error}"


def settled(ranks: Ranks, say: Callable[[], Statement]) -> str | None:
    """In what ``ranks`` differ; None if in nothing that two of them have both said.

    Each rank gets the same answer, whenever and however often it asks.
    """
    if not ranks.store.check(["decision"]):
        mine = dict(say())
        ranks.store.set(f"said by {ranks.rank}", json.dumps(mine))
        _wait(ranks)
        found = _differences(ranks, mine)
        ranks.store.compare_set("decision", "", f"{UNLIKE}: {found}" if found else ALIKE)
    decision = ranks.store.get("decision").decode()
    return None if decision == ALIKE else decision.removeprefix(f"{UNLIKE}: ")


def _wait(ranks: Ranks) -> None:
    """Until all ranks have said something, one of them has decided, or time is up."""
    keys = [f"said by {peer}" for peer in ranks.peers]
    started, pause, told = time.monotonic(), 0.005, False
    # Not `wait`, which would block whoever else uses this connection.
    while not (ranks.store.check(keys) or ranks.store.check(["decision"])):
        waited = time.monotonic() - started
        if waited > SECONDS_TO_WAIT:
            return
        if waited > SECONDS_UNTIL_TOLD and not told:
            told = True
            logger.info("mla-tune: waiting for %s to say what they apply", _silent(ranks))
        time.sleep(pause)
        pause = min(0.2, 2 * pause)


def _silent(ranks: Ranks) -> str:
    silent = [peer for peer in ranks.peers if not ranks.store.check([f"said by {peer}"])]
    return ", ".join(f"rank {peer}" for peer in silent)


def _differences(ranks: Ranks, mine: Statement) -> str:
    """In what the others differ from this rank; empty if in nothing."""
    found = []
    if silent := _silent(ranks):
        found.append(f"{silent} did not say anything; is MLA_TUNE_TABLES set there?")
    for peer in ranks.peers:
        if not ranks.store.check([f"said by {peer}"]):
            continue
        theirs = json.loads(ranks.store.get(f"said by {peer}"))
        found += [
            f"{part} is {theirs[part]} on rank {peer} and {mine[part]} on rank {ranks.rank}"
            for part in mine.keys() & theirs.keys()
            if theirs[part] != mine[part]
        ]
    return "; ".join(sorted(found))
