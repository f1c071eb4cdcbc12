import logging

import pytest

from mla_tune.vllm.plugin import state
from mla_tune.vllm.plugin.state import PluginState, once, process_state


def test_a_message_is_logged_once_in_a_state(messages: list[str]) -> None:
    one, other = PluginState(), PluginState()
    for _ in range(2):
        one.once(logging.WARNING, "a table does not act")
    other.once(logging.WARNING, "a table does not act")
    assert messages == 2 * ["WARNING a table does not act"]


def test_a_message_is_a_line(messages: list[str]) -> None:
    PluginState().once(logging.INFO, "a name with\na line break")
    assert len(messages) == 1
    assert "\n" not in messages[0]


def test_a_deployment_is_made_once_a_state() -> None:
    kept = PluginState()
    first = kept.deployment("an engine", object)
    assert kept.deployment("an engine", object) is first
    assert kept.deployment("another", object) is not first
    assert len(kept.deployments) == 2
    assert PluginState().deployments == ()


def test_a_deployment_that_cannot_be_made_is_tried_again() -> None:
    kept = PluginState()

    def fail() -> object:
        raise RuntimeError("no such luck")

    with pytest.raises(RuntimeError):
        kept.deployment("an engine", fail)
    assert kept.deployment("an engine", lambda: 1) == 1


def test_what_is_said_goes_through_the_state_of_the_process(
    messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        once(logging.INFO, "said")
    assert len(messages) == 1
    fresh = PluginState()
    monkeypatch.setattr(state, "_process_state", fresh)
    assert process_state() is fresh
    once(logging.INFO, "said")
    assert len(messages) == 2
