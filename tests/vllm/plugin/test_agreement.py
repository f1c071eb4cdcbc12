import threading
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

torch_distributed = pytest.importorskip("torch.distributed")

from mla_tune.vllm.plugin import agreement  # noqa: E402
from mla_tune.vllm.plugin.agreement import Ranks, disagreement, ranks_of, settled  # noqa: E402

TUNED = {"the set-up": "done", "tables": "a1"}


@pytest.fixture
def ranks() -> Callable[[int], list[Ranks]]:
    def make(count: int) -> list[Ranks]:
        store = torch_distributed.HashStore()
        return [Ranks(store, rank, range(count)) for rank in range(count)]

    return make


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "SECONDS_TO_WAIT", 0.05)


def all_settled(ranks: list[Ranks], statements: list[Mapping[str, str]]) -> list[str | None]:
    """What each rank is told when all of them ask at once."""
    told: dict[int, str | None] = {}

    def ask(rank: Ranks, statement: Mapping[str, str]) -> None:
        told[rank.rank] = settled(rank, lambda: statement)

    threads = [
        threading.Thread(target=ask, args=pair) for pair in zip(ranks, statements, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return [told[rank.rank] for rank in ranks]


def test_ranks_that_say_the_same_agree(ranks: Any) -> None:
    assert all_settled(ranks(4), [TUNED] * 4) == [None] * 4


def test_one_that_differs_is_named_to_all_with_what_it_differs_in(ranks: Any) -> None:
    told = all_settled(ranks(3), [TUNED, TUNED | {"tables": "b2"}, TUNED])
    assert len(set(told)) == 1
    assert "tables is b2 on rank 1" in str(told[0]) or "and b2 on rank 1" in str(told[0])


def test_a_rank_whose_set_up_failed_is_told_to_all(ranks: Any) -> None:
    told = all_settled(ranks(2), [TUNED, {"the set-up": "failed with RuntimeError: no"}])
    assert told[0] == told[1]
    assert "the set-up is" in str(told[0])
    assert "failed with RuntimeError: no" in str(told[0])


def test_parts_that_only_one_can_speak_of_are_no_difference(ranks: Any) -> None:
    """The first layer of a pipeline stage may be of another kind than that of the next."""
    told = all_settled(ranks(2), [TUNED | {"fp8 layers": "x"}, TUNED | {"bf16 layers": "y"}])
    assert told == [None, None]


@pytest.mark.usefixtures("impatient")
def test_a_rank_that_never_comes_leaves_the_others_untuned(ranks: Any) -> None:
    three = ranks(3)
    told = all_settled(three[:2], [TUNED, TUNED])
    assert told[0] == told[1]
    assert "rank 2 did not say anything" in str(told[0])
    # It was only late. The others have started untuned, so it must as well.
    assert settled(three[2], lambda: TUNED) == told[0]


def test_the_second_time_nothing_is_said(ranks: Any) -> None:
    two = ranks(2)
    all_settled(two, [TUNED, TUNED])

    def say() -> Mapping[str, str]:
        raise AssertionError("asked again")

    assert settled(two[0], say) is None


def config(tensor: int = 1, pipeline: int = 1, *, is_hybrid: bool = False) -> Any:
    parallel = SimpleNamespace(tensor_parallel_size=tensor, pipeline_parallel_size=pipeline)
    return SimpleNamespace(
        parallel_config=parallel, model_config=SimpleNamespace(is_hybrid=is_hybrid)
    )


def test_one_rank_alone_asks_nobody() -> None:
    assert ranks_of(config()) is None

    def say() -> Mapping[str, str]:
        raise AssertionError("there is nobody to say it to")

    assert disagreement(config(), say) is None


@pytest.mark.parametrize(
    ("rank", "settings", "peers"),
    [
        (1, {"tensor": 2}, range(2)),
        (6, {"tensor": 2}, range(6, 8)),  # of the fourth data-parallel replica
        (6, {"tensor": 2, "pipeline": 2}, range(4, 8)),
        (6, {"tensor": 2, "pipeline": 2, "is_hybrid": True}, range(6, 8)),
    ],
)
def test_the_ranks_of_one_replica_agree(
    monkeypatch: pytest.MonkeyPatch, rank: int, settings: Any, peers: range
) -> None:
    store = torch_distributed.HashStore()
    monkeypatch.setattr(torch_distributed, "get_rank", lambda: rank)
    monkeypatch.setattr(torch_distributed.distributed_c10d, "_get_default_store", lambda: store)
    found = ranks_of(config(**settings))
    assert found is not None
    assert (found.rank, found.peers) == (rank, peers)
    found.store.set("key", "value")
    assert store.get(f"mla_tune/{peers[0]}/key") == b"value"


def test_who_cannot_ask_applies_nothing() -> None:
    """Two ranks, and no process group."""
    assert "cannot ask the others" in str(disagreement(config(tensor=2), lambda: TUNED))
