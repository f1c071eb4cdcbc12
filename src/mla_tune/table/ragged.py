"""What the model of waves says of ragged batches: bounds, and answers that hold for all of them.

A kernel that cuts each request into ``n`` parts runs as many thread blocks for a ragged batch as
for a uniform one; only their lengths differ. So all that latency is a sum of stays as it is but for
the waves: blocks end one by one, and the next starts where one has ended. Whatever the order,
such a schedule takes (R. L. Graham, Bounds for Certain Multiprocessing Anomalies, 1966)

- at least as long as its longest block, and as all blocks shared out evenly;
- at most as long as these two together, and where all blocks run at once, as the longest.

The longest request gives the longest block, the mean one all of them together. Both bounds are met
by some batch, so that a plan which wins by the one against the other wins for every batch of that
mean and that longest request. That a plan wins for uniform batches of the mean and of the
longest says less: few splits are fine for either, and leave one long request running alone.
"""

__all__ = ["OUTSIDE", "Bounds", "answer_ragged", "bounds"]

import math
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from mla_tune.plan.cut import BLOCK_N, TiledSplits
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.table.waves import TERMS, Answer, Length, ProvenModel, WaveModel, terms

OUTSIDE = 0.06
"""By how much a measured batch may lie outside of its bounds: of 16 skewed ones on an H100
(tests/data/h100/ragged_4k_triton_mla.jsonl.gz), each with 9 split counts, 5.1 % at most."""

# What the blocks of a wave take in a kernel without a scheduler of its own; all other terms are the
# same for a ragged batch.
_OF_WAVES = frozenset(("wave", "wave_token", "shared_wave", "shared_wave_token"))


class Bounds(NamedTuple):
    """Microseconds of the ragged batches of one mean and longest KV length.

    Attributes:
        even: at least, by all blocks shared out evenly.
        longest: at least, by the longest block.
        most: at most.
    """

    even: float
    longest: float
    most: float

    @property
    def least(self) -> float:
        """The larger of the two lower bounds."""
        return max(self.even, self.longest)


class _Block(NamedTuple):
    """What a thread block takes: ``us``, and ``token_us`` for each token of its part."""

    us: float
    token_us: float

    def of(self, tokens: float) -> float:
        return self.us + self.token_us * tokens


class _Blocks:
    """The blocks of ``batch`` requests, each cut into ``value`` parts."""

    def __init__(self, model: WaveModel, batch: int, value: int) -> None:
        self._model, self._batch, self._value = model, batch, value
        self._rows = model.cutter.cut(batch, 1, value).rows
        self.count = self._rows * value

    def _block(self, per_sm: int) -> _Block:
        """A block that shares its multiprocessor with others, ``per_sm`` in all."""
        us = self._model.microseconds
        return _Block(
            us.get("wave", 0.0) + us.get("shared_wave", 0.0) * (per_sm - 1),
            us.get("wave_token", 0.0) + us.get("shared_wave_token", 0.0) * (per_sm - 1),
        )

    @cached_property
    def _crowded(self) -> _Block:
        """As slow as a block of this batch can get."""
        model = self._model
        return self._block(min(model.occupancy, math.ceil(self.count / model.cutter.sm_count)))

    @cached_property
    def _at_best(self) -> _Block:
        """A block's share of its multiprocessor's time, however many it shares that with."""
        shares = [(self._block(per_sm), per_sm) for per_sm in range(1, self._model.occupancy + 1)]
        return _Block(
            min(block.us / per_sm for block, per_sm in shares),
            min(block.token_us / per_sm for block, per_sm in shares),
        )

    def _rest_us(self, mean: int) -> float:
        """All that latency is a sum of, but the waves."""
        model = self._model
        cut = model.cutter.cut(self._batch, mean, self._value)
        counts = terms(cut, self._batch, mean, model.cutter.sm_count, model.occupancy)
        return sum(
            model.microseconds.get(name, 0.0) * count
            for name, count in zip(TERMS, counts, strict=True)
            if name not in _OF_WAVES
        )

    def bounds(self, mean: int, longest: int) -> Bounds:
        model, rest_us = self._model, self._rest_us(mean)
        part, longest_part = mean / self._value, longest / self._value
        even = self._at_best.of(part) * self.count / model.cutter.sm_count
        # A block goes through whole tiles.
        most = self._crowded.of(longest_part + BLOCK_N)
        if self.count > model.slots:
            all_us = self._crowded.of(part + BLOCK_N) * self.count / model.slots
            most = all_us + most * (1 - 1 / model.slots)
        return Bounds(rest_us + even, rest_us + self._block(1).of(longest_part), rest_us + most)


def bounds(model: WaveModel, batch: int, mean: int, longest: int, value: int) -> Bounds:
    """Bounds of the latency of ``batch`` requests under a ``value`` of the knob.

    Args:
        model: of a backend whose knob is the number of splits.
        batch: requests.
        mean, longest: of their KV lengths.
        value: the number of splits.
    """
    return _Blocks(model, batch, value).bounds(mean, longest)


def answer_ragged(
    proven: ProvenModel, batch: int, means: Sequence[int], longest: Sequence[Length]
) -> Answer:
    """What to use for ``batch`` requests, whatever the lengths between the longest and the others.

    Args:
        proven: the model of a table.
        batch: requests.
        means: the least and the largest mean of their KV lengths.
        longest: the least and the largest longest one, with the backend's defaults there.

    Returns:
        A plan where it gains over the default by more than the gate even if the default is as fast,
        the plan as slow as their bounds allow, and that gain too large by the model's error and
        `OUTSIDE`. The default where no plan gains so much even the other way round. Else a miss,
        and where the knob is not the number of splits, or a length was not measured.
    """
    values = [value for value, since in proven.values.items() if since <= means[0]]
    kv_lens = (*means, *(length.kv_len for length in longest))
    is_known = isinstance(proven.model.cutter, TiledSplits)
    if not (is_known and values and all(proven.is_within(batch, kv_len) for kv_len in kv_lens)):
        return Answer("miss")
    corners = [(mean, length) for mean in means for length in longest]
    known = {value: _Blocks(proven.model, batch, value) for value in values}
    defaults = {value for length in longest for value in length.defaults}
    untuned = {value: known.get(value) or _Blocks(proven.model, batch, value) for value in defaults}
    default_us = [
        {value: untuned[value].bounds(mean, length.kv_len) for value in length.defaults}
        for mean, length in corners
    ]
    gain, best, least_us, possible = 0.0, values[0], math.inf, 0.0
    for value, blocks in known.items():
        plan_us = [blocks.bounds(mean, length.kv_len) for mean, length in corners]
        least_gain = _least_gain(default_us, plan_us)
        if least_gain > gain:
            gain, best, least_us = least_gain, value, min(us.least for us in plan_us)
        possible = max(possible, _most_gain(default_us, plan_us))
    error = proven.error.at(least_us) + OUTSIDE
    if gain / (1 + error) > proven.gate:
        return Answer("plan", Plan(num_kv_splits=best), gain, error)
    return Answer("default" if possible <= proven.gate else "miss", UNTUNED, gain, error)


def _least_gain(defaults_us: list[dict[int, Bounds]], plan_us: list[Bounds]) -> float:
    """The least that a plan gains, over all lengths within the corners.

    Each lower bound of the default is linear in the lengths, as is the upper one of the plan: their
    ratio is least at a corner. That of the larger of the two need not be.
    """
    pairs = [(untuned, plan) for untuned, plan in zip(defaults_us, plan_us, strict=True)]
    even = min(min(us.even for us in untuned.values()) / plan.most for untuned, plan in pairs)
    longest = min(min(us.longest for us in untuned.values()) / plan.most for untuned, plan in pairs)
    return max(even, longest)


def _most_gain(defaults_us: list[dict[int, Bounds]], plan_us: list[Bounds]) -> float:
    """The most that a plan may gain at a corner."""
    return max(
        max(us.most for us in untuned.values()) / plan.least
        for untuned, plan in zip(defaults_us, plan_us, strict=True)
    )
