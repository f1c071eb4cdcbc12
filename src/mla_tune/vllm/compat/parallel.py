"""What an engine's parallel_config says, in the words of each release."""

__all__ = [
    "decode_context_parallel",
    "local_kv_len",
    "microbatched",
    "prefill_context_parallel",
]

from typing import Any


def decode_context_parallel(parallel_config: Any) -> int:
    """Over how many ranks the KV cache of a decode is spread."""
    return int(getattr(parallel_config, "decode_context_parallel_size", 1))


def local_kv_len(parallel_config: Any, kv_len: int) -> int:
    """The most tokens of a request of ``kv_len`` that lie on one rank.

    ``ceil(L / (N * I)) * I`` with N ranks and I tokens in turn on each, as vLLM 0.33's
    ``MLACommonMetadataBuilder.build`` has it.
    """
    ranks = decode_context_parallel(parallel_config)
    in_turn = int(getattr(parallel_config, "cp_kv_cache_interleave_size", 1)) if ranks > 1 else 1
    return -(-kv_len // (ranks * in_turn)) * in_turn


def prefill_context_parallel(parallel_config: Any) -> int:
    """Over how many ranks the tokens of a prefill are spread; 0.20 cannot."""
    return int(getattr(parallel_config, "prefill_context_parallel_size", 1))


def microbatched(parallel_config: Any) -> bool:
    """Whether steps are run as several microbatches; later releases have a second switch."""
    names = ("enable_dbo", "use_ubatching")
    return any(getattr(parallel_config, name, False) for name in names)
