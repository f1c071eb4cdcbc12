"""Tables for an engine on this machine's CPU, and a plugin state that each test leaves clean."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from plugin_state import forget
from tabled_engine import WriteTable

from mla_tune.table import Entry, Header, merge


@pytest.fixture
def write_table(tmp_path: Path) -> WriteTable:
    def write(header: Header, *entries: Entry, name: str | None = None) -> Path:
        path = tmp_path / (name or f"{header.backend}-{header.engine.mode}.yaml")
        merge(path, header, entries)
        return path

    return write


@pytest.fixture(autouse=True)
def clean_plugin() -> Iterator[None]:
    """Forget tables, deployments, messages and overrides."""
    forget()
    yield
    forget()


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the plugin logs, whatever vLLM has done to the logging."""
    said: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(f"{record.levelname} {record.getMessage()}")

    logger = logging.getLogger("vllm.mla_tune")
    monkeypatch.setattr(logger, "handlers", [Keeper()])
    monkeypatch.setattr(logger, "disabled", False)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    yield said
    logger.setLevel(level)
