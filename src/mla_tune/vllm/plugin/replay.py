"""What a builder does for a batch size that has been captured."""

__all__ = ["STEPS_BETWEEN_LOOKS", "Replay"]

import math
from dataclasses import dataclass

from mla_tune.table import DEFAULT_WITHIN
from mla_tune.vllm.plugin.choice import Choice
from mla_tune.vllm.plugin.counts import Tally
from mla_tune.vllm.plugin.fields import Fields

STEPS_BETWEEN_LOOKS = 256


@dataclass(slots=True, eq=False)
class Replay:
    """The values that a graph was captured with, for the steps that replay it.

    Attributes:
        choice: what the table says.
        before: what to set on the builder before vLLM builds.
        after: what to set on the metadata that it has built; a step may still run outside the
            graph.
        longest_kv: the KV length, on all ranks together, beyond which the entry says nothing.
        look_every: after how many steps there is something else to do.
        tally: the steps of its outcome, which a step adds itself to.
    """

    choice: Choice
    before: Fields
    after: Fields
    longest_kv: float
    look_every: int
    tally: Tally

    @classmethod
    def of(
        cls,
        choice: Choice,
        before: Fields,
        after: Fields,
        look_every: int,
        tally: Tally,
        ranks: int = 1,
    ) -> "Replay":
        """``ranks`` share the KV cache of a request, whose whole length vLLM tells a builder."""
        longest = math.inf
        if choice.longest_kv is not None:
            longest = DEFAULT_WITHIN * choice.longest_kv * ranks
        return cls(choice, before, after, longest, look_every, tally)
