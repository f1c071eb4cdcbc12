"""The subclasses that are made for backends without a split count, without vLLM."""

import pytest

from mla_tune.vllm.plugin import without_splits
from mla_tune.vllm.plugin.at_load import ReservesAtLoad
from mla_tune.vllm.plugin.builder import TunedBuilder


class SomeBuilder:
    pass


class SomeImpl:
    pass


class SomeBackend:
    @staticmethod
    def get_name() -> str:
        return "SOME_MLA"

    @staticmethod
    def get_builder_cls() -> type:
        return SomeBuilder

    @staticmethod
    def get_impl_cls() -> type:
        return SomeImpl


def test_a_backend_keeps_its_name_and_gets_our_builder_and_impl() -> None:
    ours = without_splits.tuned("SOME_MLA", SomeBackend)
    assert issubclass(ours, SomeBackend)
    assert ours.get_name() == "SOME_MLA"
    assert ours.get_builder_cls().__mro__[:3] == (
        ours.get_builder_cls(),
        TunedBuilder,
        SomeBuilder,
    )
    assert issubclass(ours.get_impl_cls(), (ReservesAtLoad, SomeImpl))
    for part in (ours, ours.get_builder_cls(), ours.get_impl_cls()):
        assert part.__module__ == without_splits.__name__
        assert part.__name__.startswith("TunedSome")
    assert ours.get_builder_cls().mla_tune_backend == ours.get_impl_cls().mla_tune_backend


def test_each_class_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(without_splits, "vllms_backend", lambda _: SomeBackend)
    first = without_splits.SOME_MLA
    assert without_splits.SOME_MLA is first
    monkeypatch.delitem(vars(without_splits), "SOME_MLA")


def test_what_is_no_backends_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="some_name"):
        _ = without_splits.some_name
