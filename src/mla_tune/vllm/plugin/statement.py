"""What a rank says to the others about what it is going to apply."""

__all__ = ["failed", "set_up"]

import hashlib
from collections.abc import Iterable, Mapping

from mla_tune._version import __version__
from mla_tune.table.loading import LoadedTable
from mla_tune.table.matching import EngineFacts
from mla_tune.vllm.plugin.choice import Choice

SET_UP = "the set-up"


def failed(error: Exception) -> dict[str, str]:
    """The statement of a rank whose set-up has raised ``error``."""
    return {SET_UP: f"failed with {type(error).__name__}: {error}"}


def set_up(
    facts: EngineFacts,
    loaded: Iterable[LoadedTable],
    chosen: Mapping[str, LoadedTable],
    planned: Mapping[tuple[int, int], Choice],
) -> dict[str, str]:
    """The statement of a rank that is ready: releases, device, tables and what they come to.

    Tables go by their contents, since each rank may have them elsewhere. What they come to is said
    of one kind of layer by name: in an engine whose layers differ, the first of one pipeline stage
    need not be like the first of another.
    """
    layer = (
        f"{facts.backend} with a KV cache of type {facts.kv_cache_dtype} in blocks of "
        f"{facts.block_size} and weights of quantization {facts.quantization}"
    )
    uses = [f"{mode} table {_digest(_contents(table))}" for mode, table in sorted(chosen.items())]
    if planned:
        uses.append(f"plans of {len(planned)} graphs {_digest(_plans(planned))}")
    return {
        SET_UP: "done",
        "mla-tune": __version__,
        "vLLM": facts.vllm,
        "the GPU": f"{facts.device_name} with {facts.sm_count} SMs",
        "max_model_len": str(facts.max_model_len),
        "what MLA_TUNE_TABLES holds": _digest(sorted(_contents(table) for table in loaded)),
        f"what {layer} uses": ", ".join(uses) or "nothing",
    }


def _contents(loaded: LoadedTable) -> str:
    table = loaded.table
    parts = [table.header, *([table.between] if table.between else []), *table.entries]
    return "\n".join(part.model_dump_json() for part in parts)


def _plans(planned: Mapping[tuple[int, int], Choice]) -> list[str]:
    return [f"{key} {choice.plan}" for key, choice in sorted(planned.items())]


def _digest(parts: str | Iterable[str]) -> str:
    text = parts if isinstance(parts, str) else "\n".join(parts)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
