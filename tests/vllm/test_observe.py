from types import SimpleNamespace

import pytest

from mla_tune.vllm.observe import arguments_of, calls_of, set_for_now


class Impl:
    rank = 1

    def launch(self, query: str, **kwargs: int) -> str:
        return f"{query} in {kwargs.get('num_splits')}"


def test_an_argument_is_seen_even_inside_a_catch_all_and_the_call_still_runs() -> None:
    impl = Impl()
    with calls_of(impl, "launch", "num_splits") as seen:
        assert impl.launch("q", num_splits=4) == "q in 4"
    assert seen == [4]
    assert "launch" not in vars(impl)


def test_a_default_counts_as_an_argument() -> None:
    module = SimpleNamespace(launch=lambda splits=1: splits)
    with calls_of(module, "launch", "splits") as seen:
        module.launch()
    assert seen == [1]


def test_all_arguments_are_kept() -> None:
    impl = Impl()
    with arguments_of(impl, "launch") as calls:
        impl.launch("q", num_splits=2)
    assert calls == [(("q",), {"num_splits": 2})]


def test_what_was_there_comes_back_after_an_error() -> None:
    impl, own = Impl(), SimpleNamespace(rank=1)

    def fail(owner: object) -> None:
        with set_for_now(owner, "rank", 2):
            raise RuntimeError(owner.rank)  # type: ignore[attr-defined]

    for owner in (impl, own):
        with pytest.raises(RuntimeError, match="2"):
            fail(owner)
        assert owner.rank == 1
    assert vars(impl) == {}
