import numpy as np
import pytest

from mla_tune.errors import InputError
from mla_tune.traffic import batching
from mla_tune.traffic.batching import SimulatedEngine, decode_steps
from mla_tune.traffic.trace import TracedRequest


def steps(*requests: tuple[float, int, int], **engine: float) -> list[list[int]]:
    simulated = SimulatedEngine(**({"step_ms": 1000.0} | engine))
    traced = [TracedRequest(*request) for request in requests]
    return [step.tolist() for step in decode_steps(traced, simulated)]


def test_the_first_token_is_the_prefills() -> None:
    assert steps((0, 100, 3), (0, 50, 1)) == [[101], [102]]


def test_requests_join_and_leave_between_steps() -> None:
    assert steps((0, 100, 4), (0.5, 10, 2)) == [[101], [102, 11], [103]]


def test_a_full_engine_lets_the_others_wait_in_turn() -> None:
    found = steps((0, 100, 3), (0, 200, 2), (0, 300, 2), max_num_seqs=1)
    assert found == [[101], [102], [201], [301]]


def test_an_idle_engine_takes_no_steps() -> None:
    assert steps((0, 1, 2), (1e6, 2, 2)) == [[2], [3]]


def test_requests_beyond_the_engine_are_turned_away() -> None:
    assert steps((0, 100, 3), (0, 50, 2), max_model_len=102) == [[51]]


def test_all_tokens_are_generated_once() -> None:
    rng = np.random.default_rng(0)
    lines = [
        (float(at), int(context), int(generated))
        for at, context, generated in zip(
            np.sort(rng.uniform(0, 50, 200)),
            rng.integers(1, 999, 200),
            rng.integers(1, 60, 200),
            strict=True,
        )
    ]
    found = steps(*lines, max_num_seqs=16)
    assert max(map(len, found)) == 16
    wanted = sorted(context + i for _, context, n in lines for i in range(1, n))
    assert sorted(kv for step in found for kv in step) == wanted


def test_a_trace_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MOST_STEPS", 3)
    assert len(steps((0, 1, 4))) == 3
    with pytest.raises(InputError, match="more than 3 decode steps of 1000 ms"):
        steps((0, 1, 5))
