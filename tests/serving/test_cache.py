import os
import time
from pathlib import Path

import pytest

from mla_tune.errors import InputError
from mla_tune.serving.cache import Cache, Slot, default_cache


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def used(cache: Cache, name: str, days_ago: float = 0) -> Slot:
    slot = cache.slot(name, name)
    slot.path.mkdir(parents=True)
    (slot.path / "TORCH_MLA.yaml").write_text("a table")
    slot.use()
    then = time.time() - days_ago * 86400
    os.utime(slot.path / "last-used", (then, then))
    return slot


def test_slots_differ_by_what_is_asked(cache: Cache) -> None:
    one, other = cache.slot("A/B C", "one"), cache.slot("A/B C", "other")
    assert one.path != other.path
    assert one.path.name.startswith("A_B_C-")
    assert cache.slots() == []


def test_descriptions_are_kept_by_key(cache: Cache) -> None:
    assert cache.description("a command") is None
    cache.keep_description("a command", "what it is")
    assert cache.description("a command") == "what it is"
    assert cache.description("another") is None


def test_what_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "below")
    cache.keep_description("a command", "what it is")
    cache.slot("A", "one").use()
    cache.slot("A", "one").keep_failed(["q1s1k"])
    assert cache.description("a command") is None


def test_failures_add_up(cache: Cache) -> None:
    slot = used(cache, "A")
    assert slot.failed == []
    slot.keep_failed(["q1s1k"])
    slot.keep_failed(["2q1s1k", "q1s1k"])
    assert slot.failed == ["2q1s1k", "q1s1k"]


def test_cleaning_keeps_what_was_used_since(cache: Cache) -> None:
    old, new = used(cache, "old", days_ago=40), used(cache, "new", days_ago=1)
    assert cache.clean(30 * 86400) == ([old], [])
    assert cache.slots() == [new]
    assert cache.clean(0) == ([new], [])
    assert cache.slots() == []


def test_a_slot_that_is_being_tuned_is_not_cleaned(cache: Cache) -> None:
    slot = used(cache, "busy")
    with slot.alone(timeout_s=0) as is_mine:
        assert is_mine
        assert cache.clean(0) == ([], [slot])
        with Slot(slot.path).alone(timeout_s=0.1) as is_others:
            assert not is_others
    assert slot.tables


def test_a_path_that_cannot_stand_in_the_variable_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="in its path"):
        Cache(tmp_path / "a:b")


def test_the_default_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "mla-tune" / "serve"
