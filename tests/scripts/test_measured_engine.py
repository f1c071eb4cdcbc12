import types

import pytest

import measured_engine
from measured_engine import MeasuredEngine
from stepped_requests import SETTLING, Step


class Stepped:
    """Stands in for `SteppedRequests`: notes what is begun, and steps as it is told to."""

    def __init__(self):
        self.begun = []
        self.requests = None

    def begin(self, arrivals):
        self.begun.append(arrivals)
        self.prefilling = 2

    def drop(self):
        pass

    def run(self, count):
        batch = len(self.begun[-1])
        if self.prefilling:
            self.prefilling -= 1
            return [Step(batch, 3 * batch, 0, 9.0)]
        batch = self.requests or batch
        return [Step(batch, batch, batch, 2.0)] * (count - 1) + [Step(batch, batch, batch, 50.0)]


@pytest.fixture
def engine():
    """A MeasuredEngine without vLLM."""
    made = object.__new__(MeasuredEngine)
    made._stepped = Stepped()
    made._held, made._grown, made._prompts = None, 0, {}
    config = types.SimpleNamespace(
        model_config=types.SimpleNamespace(max_model_len=4096),
        scheduler_config=types.SimpleNamespace(max_num_batched_tokens=1024),
    )
    made._llm = types.SimpleNamespace(
        llm_engine=types.SimpleNamespace(vllm_config=config), reset_prefix_cache=lambda: True
    )
    return made


def test_a_sample_leaves_the_hiccups_of_the_host_out(engine):
    assert engine.decode(batch=4, context=1024, steps=16) == pytest.approx(2.0)


def test_requests_are_exchanged_when_they_have_grown(engine):
    for _ in range(8):
        engine.decode(batch=4, context=1024, steps=16)
    # A sixteenth of 1024 tokens are four samples of 16 steps and what settles.
    assert len(engine._stepped.begun) == 2
    assert 4 * (16 + SETTLING) > 1024 * measured_engine.MOST_GROWTH > 3 * (16 + SETTLING)
    engine.decode(batch=2, context=1024, steps=16)
    assert [len(begun) for begun in engine._stepped.begun] == [4, 4, 2]
    first, last = engine._stepped.begun[0][0], engine._stepped.begun[-1][0]
    assert first == last  # the same texts, which the prefix cache holds
    assert (first.step, len(first.prompt), first.tokens) == (0, 1024, 4096 - 1024)


def test_requests_that_wait_for_room_are_no_batch(engine):
    engine._stepped.requests = 3
    with pytest.raises(RuntimeError, match=r"a step of 3 requests.*where 4 requests of 1024"):
        engine.decode(batch=4, context=1024, steps=16)


def test_a_trace_has_the_same_texts_in_every_engine(engine):
    for _ in range(2):
        engine.begin_trace([(0, 5, 7), (3, 2, 1)])
    assert engine._stepped.begun[0] == engine._stepped.begun[1]
    assert [(len(r.prompt), r.step, r.tokens) for r in engine._stepped.begun[0]] == [
        (5, 0, 7),
        (2, 3, 1),
    ]
