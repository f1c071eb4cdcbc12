"""A plugin that has loaded and said nothing yet."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mla_tune.vllm.plugin import resolve, state


@contextmanager
def fresh_plugin() -> Iterator[state.PluginState]:
    """Give the process another state, and leave vLLM its own backends."""
    with pytest.MonkeyPatch.context() as patch:
        fresh = state.PluginState()
        patch.setattr(state, "_process_state", fresh)
        yield fresh
    if registry := sys.modules.get("vllm.v1.attention.backends.registry"):
        for name in resolve.tuned_backends():
            registry.AttentionBackendEnum[name].clear_override()
