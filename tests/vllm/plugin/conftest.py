"""A state of the plugin of its own for each test."""

from collections.abc import Iterator

import pytest
from plugin_state import fresh_plugin

from mla_tune.vllm.plugin.state import PluginState


@pytest.fixture(autouse=True)
def plugin_state() -> Iterator[PluginState]:
    with fresh_plugin() as state:
        yield state
