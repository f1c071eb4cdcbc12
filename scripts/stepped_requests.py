"""Requests that one engine of `bench_engine.py` serves step by step, and pauses between.

An engine that pauses keeps its requests, so that the next one can be measured in the same seconds
and at the same KV lengths, and nothing is prefilled twice.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

SETTLING = 3
"""Steps after a pause that are not counted: the queue of an engine that schedules ahead is filled
again, and the first step may have been ready since before the pause."""


class Step(NamedTuple):
    """A completed step of an engine.

    Attributes:
        requests: how many were in it.
        tokens: of all of them together.
        decodes: requests that had a single token.
        ms: since the step before.
    """

    requests: int
    tokens: int
    decodes: int
    ms: float

    @property
    def is_decode(self) -> bool:
        """Whether nothing was prefilled, so that a captured graph may have run."""
        return self.tokens == self.decodes


class Arrival(NamedTuple):
    """A request to come: at which step, its prompt, and how many tokens it generates."""

    step: int
    prompt: Sequence[int]
    tokens: int


class SteppedRequests:
    """Serves requests by steps that are counted, with arrivals at the step they are due.

    Time is counted in scheduled steps, so that engines of any speed run the same batches.

    Args:
        engine: vLLM's LLMEngine, with its core in this process.
        params: sampling parameters for so many tokens.
        synchronize: waits for the GPU.
    """

    def __init__(
        self, engine: Any, params: Callable[[int], Any], synchronize: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._params = params
        self._synchronize = synchronize
        self._arrivals: Iterator[Arrival] = iter(())
        self._next: Arrival | None = None
        self._scheduled = 0
        self._ids: list[str] = []
        self._count = 0
        self._seen: list[tuple[float, int, int, int]] = []
        self._core = engine.engine_core.engine_core
        scheduler = self._core.scheduler
        self._schedule, self._update = scheduler.schedule, scheduler.update_from_output
        scheduler.schedule, scheduler.update_from_output = self._admit_and_schedule, self._note

    def begin(self, arrivals: Sequence[Arrival]) -> None:
        """Drop what is being served, and begin with ``arrivals``, which ascend."""
        self.drop()
        self._arrivals = iter(arrivals)
        self._next = next(self._arrivals, None)
        self._scheduled = 0

    def drop(self) -> None:
        """Abort what is being served."""
        self._arrivals, self._next = iter(()), None
        self._engine.abort_request(self._ids)
        self._ids.clear()
        # A step that was scheduled ahead is no part of what begins next.
        while self._engine.has_unfinished_requests() or self._core.batch_queue:
            self._engine.step()

    def run(self, count: int) -> list[Step]:
        """Complete `SETTLING` steps and ``count`` more, and return these.

        They are fewer where the requests are at their end.
        """
        self._seen.clear()
        while len(self._seen) < SETTLING + count:
            if not self._engine.has_unfinished_requests():
                if self._next is None:
                    break
                # Nothing is scheduled while nobody is there.
                self._scheduled = max(self._scheduled, self._next.step)
                self._admit()
            self._engine.step()
        # What is scheduled ahead would run in the next engine's time.
        self._synchronize()
        times = [seen[0] for seen in self._seen]
        return [
            Step(*seen[1:], ms=(seen[0] - before) * 1e3)
            for before, seen in zip(times[SETTLING - 1 :], self._seen[SETTLING:], strict=False)
        ]

    def _admit(self) -> None:
        while self._next is not None and self._next.step <= self._scheduled:
            arrival = self._next
            self._count += 1
            self._ids.append(f"stepped-{self._count}")
            self._engine.add_request(
                self._ids[-1],
                {"prompt_token_ids": list(arrival.prompt)},
                self._params(arrival.tokens),
            )
            self._next = next(self._arrivals, None)

    def _admit_and_schedule(self, *arguments: Any, **named: Any) -> Any:
        """The scheduler's ``schedule``; who is due is let in before it."""
        self._admit()
        scheduled = self._schedule(*arguments, **named)
        self._scheduled += scheduled.total_num_scheduled_tokens > 0
        return scheduled

    def _note(self, scheduled: Any, *arguments: Any, **named: Any) -> Any:
        """The scheduler's ``update_from_output``, noting the step that is complete."""
        tokens = scheduled.num_scheduled_tokens
        if tokens:
            decodes = sum(number == 1 for number in tokens.values())
            now = time.perf_counter()
            self._seen.append((now, len(tokens), scheduled.total_num_scheduled_tokens, decodes))
        return self._update(scheduled, *arguments, **named)
