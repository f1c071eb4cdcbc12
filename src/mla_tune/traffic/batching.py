"""A simple model of an engine with continuous batching: from a trace to its decode steps.

What it does and leaves out:

- Every decode step takes the same time.
- A request joins at the first step after its arrival at which there is a free place, in the order
  of arrival. Memory is not modelled: nothing is preempted.
- Prefill takes no time and no step, as if it were done elsewhere. It gives the first token, so that
  an answer of N tokens takes N - 1 decode steps, at KV lengths from one above the context on.
"""

__all__ = ["MOST_STEPS", "SimulatedEngine", "decode_steps"]

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mla_tune.errors import InputError
from mla_tune.traffic.trace import TracedRequest

MOST_STEPS = 4_000_000
"""A day and a half of steps of 30 ms; about a minute to simulate."""


@dataclass(frozen=True)
class SimulatedEngine:
    """What the model of `mla_tune.traffic.batching` knows of an engine.

    Attributes:
        max_num_seqs: the most requests in a step.
        max_model_len: requests that would become longer are turned away.
        step_ms: milliseconds that a decode step takes.
    """

    max_num_seqs: int = 256
    max_model_len: int = 131072
    step_ms: float = 30.0

    def admits(self, request: TracedRequest) -> bool:
        """Whether ``request`` is served at all."""
        return request.context + request.generated <= self.max_model_len


def decode_steps(
    requests: Sequence[TracedRequest], engine: SimulatedEngine
) -> Iterator[npt.NDArray[np.int64]]:
    """The KV lengths of the requests in each decode step, in the order of arrival.

    Args:
        requests: by time of arrival.
        engine: what serves them.

    Raises:
        InputError: more than `MOST_STEPS` steps.
    """
    waiting = deque(each for each in requests if each.generated > 1 and engine.admits(each))
    kv_lens = np.empty(0, np.int64)
    left = np.empty(0, np.int64)
    now_s, steps, step_s = 0.0, 0, engine.step_ms / 1e3
    while waiting or len(kv_lens):
        if not len(kv_lens):
            now_s = max(now_s, waiting[0].arrival_s)
        joining: list[TracedRequest] = []
        while waiting and waiting[0].arrival_s <= now_s:
            if len(kv_lens) + len(joining) == engine.max_num_seqs:
                break
            joining.append(waiting.popleft())
        if joining:
            contexts = [request.context for request in joining]
            kv_lens = np.append(kv_lens, np.array(contexts, np.int64))
            left = np.append(left, np.array([each.generated - 1 for each in joining], np.int64))
        kv_lens = kv_lens + 1
        if steps == MOST_STEPS:
            raise InputError(
                f"the trace takes more than {MOST_STEPS} decode steps of {engine.step_ms:g} ms",
                remedy=f"cut it after {math.floor(now_s)} s, or give a longer step",
            )
        yield kv_lens
        now_s, steps = now_s + step_s, steps + 1
        left -= 1
        if not left.all():
            kv_lens, left = kv_lens[left > 0], left[left > 0]
