"""Requests served step by step, by an engine that schedules one step ahead as vLLM's does."""

import types
from collections import deque

import pytest

from stepped_requests import SETTLING, Arrival, SteppedRequests

CHUNK = 8


class Scheduler:
    """Whole prompts in chunks of `CHUNK`, then a token a step."""

    def __init__(self):
        self.left = {}

    def schedule(self):
        tokens = {}
        for name, (prompt, output) in list(self.left.items()):
            taken = min(CHUNK, prompt) if prompt else 1
            tokens[name] = taken
            # The last chunk of a prompt generates a token too.
            done = output - (prompt <= CHUNK)
            self.left[name] = (prompt - taken if prompt else 0, done)
            if done == 0:
                del self.left[name]
        return types.SimpleNamespace(
            num_scheduled_tokens=tokens, total_num_scheduled_tokens=sum(tokens.values())
        )

    def update_from_output(self, scheduled, output):
        pass


class Engine:
    """As vLLM's LLMEngine in this process: a step fills the queue, or completes its oldest."""

    def __init__(self):
        self.scheduler = Scheduler()
        self.queue = deque()
        self.aborted = False
        core = types.SimpleNamespace(scheduler=self.scheduler, batch_queue=self.queue)
        self.engine_core = types.SimpleNamespace(engine_core=core)

    def add_request(self, name, prompt, params):
        self.aborted = False
        self.scheduler.left[name] = (len(prompt["prompt_token_ids"]), params)

    def abort_request(self, names):
        for name in names:
            self.scheduler.left.pop(name, None)
        self.aborted = not self.scheduler.left

    def has_unfinished_requests(self):
        return bool(self.scheduler.left or (self.queue and not self.aborted))

    def step(self):
        if self.scheduler.left:
            self.queue.append(self.scheduler.schedule())
            if len(self.queue) < 2 and self.scheduler.left:
                return
        self.scheduler.update_from_output(self.queue.popleft(), None)


@pytest.fixture
def stepped():
    waits = []
    made = SteppedRequests(Engine(), lambda tokens: tokens, lambda: waits.append(1))
    made.waits = waits
    return made


def shapes(steps):
    return [step[:3] for step in steps]


def test_steps_are_counted_after_the_engine_has_settled(stepped):
    stepped.begin([Arrival(0, range(CHUNK), 50)] * 3)
    first = stepped.run(4)
    assert shapes(first) == [(3, 3, 3)] * 4
    assert all(step.is_decode and step.ms >= 0 for step in first)
    # A pause, and on it goes.
    assert shapes(stepped.run(4)) == [(3, 3, 3)] * 4
    assert len(stepped.waits) == 2


def test_a_request_comes_at_its_step_however_the_steps_are_cut(stepped):
    arrivals = [
        Arrival(0, range(20), 30),
        Arrival(7, range(CHUNK), 10),
        Arrival(7, range(3), 4),
        Arrival(12, range(CHUNK + 1), 5),
    ]
    stepped.begin(arrivals)
    whole = shapes(stepped.run(20))
    # The prompts of the two that come at the seventh step, and a chunk of the last one's.
    assert whole[7 - SETTLING] == (3, 1 + CHUNK + 3, 1)
    assert whole[8 - SETTLING] == (3, 3, 3)
    assert whole[12 - SETTLING] == (3, 1 + 1 + CHUNK, 2)
    again = SteppedRequests(Engine(), lambda tokens: tokens, lambda: None)
    again.begin(arrivals)
    cut = [*shapes(again.run(5)), *shapes(again.run(20 - 5 - SETTLING))]
    assert cut == [*whole[:5], *whole[5 + SETTLING :]]


def test_an_empty_engine_waits_for_nobody(stepped):
    stepped.begin([Arrival(0, range(4), 6), Arrival(10_000, range(4), 6)])
    assert len(stepped.run(100)) == 12 - SETTLING
    assert stepped.run(5) == []


def test_what_is_dropped_is_served_no_more(stepped):
    stepped.begin([Arrival(0, range(4), 1000), Arrival(5, range(4), 1000)])
    stepped.run(2)
    # None of the two before is in a step with the four, and none of their steps is counted.
    later = [Arrival(step, range(4), 1000) for step in (0, 1, 2, SETTLING)]
    stepped.begin(later)
    assert shapes(stepped.run(2)) == [(4, 3 + 4, 3), (4, 4, 4)]
    stepped.drop()
    assert stepped.run(3) == []
