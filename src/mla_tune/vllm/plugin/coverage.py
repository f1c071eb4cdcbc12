"""How many of an engine's decode graphs get what a graph table says, in one line for its log."""

__all__ = ["coverage"]

import logging
from collections.abc import Collection, Mapping, Sequence

from mla_tune.vllm.plugin.choice import Choice
from mla_tune.vllm.plugin.lookups import ENDS_EARLY, UNIFORM_ALONE

# An engine captures 51 sizes by default; more than these are named by the first and the last.
MOST_NAMED = 8
REMEDY = (
    "a shapes file with graph: {capture_sizes: vllm, kv_lens: [...]} has every captured size tuned"
)


def coverage(
    planned: Mapping[tuple[int, int], Choice],
    tabled: Collection[tuple[int, int]],
    most_kv_tokens: int | None = None,
) -> tuple[int, str]:
    """What to log of the decode graphs that are going to be captured, and the level.

    Args:
        planned: the choice for each graph, by requests and query length.
        tabled: requests and query lengths that the graph table has an entry for; none without one.
        most_kv_tokens: that the engine's KV cache can hold; None where that is not known.

    Returns:
        A warning where a graph table leaves out a graph, and otherwise a piece of information.
    """
    missing = [key for key in planned if key not in tabled]
    line = f"{len(planned) - len(missing)} of {len(planned)} decode graphs have an entry"
    if not tabled:
        return logging.INFO, f"{line}: there is no table for graph mode"
    parts = [line]
    refused = [
        choice.reason
        for key, choice in planned.items()
        if key in tabled and choice.outcome == "miss"
    ]
    if short := refused.count(ENDS_EARLY):
        parts.append(f"{short} of these were {ENDS_EARLY}: {_longer(most_kv_tokens)}")
    if uniform := refused.count(UNIFORM_ALONE):
        parts.append(
            f"{uniform} of these were {UNIFORM_ALONE} and may be far slower than vLLM on others: "
            "tune them again (or MLA_TUNE_UNGUARDED=1 where all requests are of one length)"
        )
    refused = [reason for reason in refused if reason not in {ENDS_EARLY, UNIFORM_ALONE}]
    if refused:
        parts.append(f"{len(refused)} of these are left as vLLM has them ({refused[0]})")
    if missing:
        parts.append(f"{_named(missing)} have none and are left as vLLM has them: {REMEDY}")
    return logging.WARNING if parts[1:] else logging.INFO, "; ".join(parts)


def _longer(most_kv_tokens: int | None) -> str:
    """How to have a table measured as far as the engine serves."""
    tokens = "" if most_kv_tokens is None else f", kv_cache_tokens: {most_kv_tokens}"
    return f"tune them for the engine's max_model_len with graph: {{capture_sizes: vllm{tokens}}}"


def _named(keys: Sequence[tuple[int, int]]) -> str:
    """Batches as specs without a KV length; of many the first, the last and how many."""
    specs = [f"{requests if requests > 1 else ''}q{query_len}" for requests, query_len in keys]
    if len(specs) <= MOST_NAMED:
        return ", ".join(specs)
    return f"{', '.join(specs[: MOST_NAMED - 1])} … {specs[-1]} ({len(specs)} in all)"
