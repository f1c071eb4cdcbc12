"""A plugin state of its own for each test."""

from collections.abc import Iterator

import pytest
from plugin_state import forget


@pytest.fixture(autouse=True)
def clean_plugin() -> Iterator[None]:
    """Forget tables, deployments, messages and overrides."""
    forget()
    yield
    forget()
