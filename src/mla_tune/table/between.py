"""A table's section ``between``: a proven model that answers between its single-token entries."""

__all__ = ["Between", "Longer"]

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mla_tune.plan.cut import CUTTERS, Cutter
from mla_tune.table.longer import DECODE_TERMS, PREFILL_TERMS, Extend, LongerModel, Paths
from mla_tune.table.waves import TERMS, Error, Length, ProvenModel, WaveModel

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Value = Annotated[int, Field(ge=0, le=2**20)]
# Far beyond what a fit gives, and so that no sum of them is infinite.
NotNegative = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Requests = Annotated[int, Field(ge=1, le=2**16)]
Tokens = Annotated[int, Field(ge=1, le=2**24)]
Point = tuple[Requests, Tokens]
Lengths = tuple[Requests, Tokens, Tokens]


def _known(names: tuple[str, ...], *constant: str) -> AfterValidator:
    """That microseconds are of the terms ``names``, a ``constant`` one among them."""

    def known(microseconds: dict[str, float]) -> dict[str, float]:
        for name in microseconds:
            if name not in names:
                raise ValueError(f"latency has no term {name!r}; valid: {', '.join(names)}")
        if not any(microseconds.get(name) for name in constant):
            raise ValueError("a launch of no time: latency would be zero somewhere")
        return microseconds

    return AfterValidator(known)


def _known_rule(name: str) -> str:
    if name not in CUTTERS:
        raise ValueError(f"cut {name!r} is not known here; valid: {', '.join(CUTTERS)}")
    return name


class Longer(BaseModel):
    """The same for uniform batches of several query tokens; see `mla_tune.table.longer`.

    Attributes:
        decode_us, prefill_us: microseconds of each term, on either path.
        error, error_us, points, regret, worst_regret: as `Between` has them.
        threshold: the longest query, in tokens, that takes the decode path untuned.
        default: the split knob's value untuned, and ...
        values: ... those that were measured.
        smallest, largest: bounds of what was measured, as `LongerModel` has them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    decode_us: Annotated[dict[str, NotNegative], _known(DECODE_TERMS, "launch")]
    prefill_us: Annotated[dict[str, NotNegative], _known(PREFILL_TERMS, "launch", "context")]
    error: NotNegative
    error_us: NotNegative
    points: Count
    regret: NotNegative
    worst_regret: NotNegative
    threshold: Annotated[int, Field(ge=2, le=2**20)]
    default: Value
    values: Annotated[tuple[Value, ...], Field(min_length=1, max_length=512)]
    smallest: Lengths
    largest: Annotated[tuple[Lengths, ...], Field(min_length=1, max_length=512)]

    def model(self, cutter: Cutter, gate: float, most_tokens: int) -> LongerModel:
        """What answers; the knob acts on batches of up to ``most_tokens`` query tokens."""
        return LongerModel(
            Paths(cutter, self.decode_us, self.prefill_us),
            Error(self.error, self.error_us),
            gate,
            self.threshold,
            self.default,
            self.values,
            most_tokens,
            Extend(*self.smallest),
            [Extend(*each) for each in self.largest],
        )


class Between(BaseModel):
    """A model of latency in waves, and how far it is proven; see `mla_tune.table.waves`.

    Attributes:
        knob: which one it is about.
        cut: by which rule the backend's kernel cuts a batch, one of `CUTTERS`.
        occupancy: thread blocks that a multiprocessor runs at a time.
        us: microseconds of each term.
        gate: the gain that a plan must have, and ...
        error, error_us: ... by which share, 0.01 is 1 %, a predicted gain may be too large: a
            quantile of what it was off by at each measured point, left out of the fit in turn. It
            is ``error``, and ``error_us`` over the latency.
        points: how many these were.
        regret, worst_regret: there, latency of the value chosen over the best one's, less one.
        values: of the knob, each with the shortest KV length at which it was measured.
        defaults: what the backend takes untuned, by measured KV length.
        smallest, largest: bounds of what was measured, as `ProvenModel` has them.
        longer: the same for longer queries, if they were measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    knob: Literal["num_kv_splits"]
    cut: Annotated[str, AfterValidator(_known_rule)]
    occupancy: Annotated[int, Field(ge=1, le=64)]
    us: Annotated[dict[str, NotNegative], _known(TERMS, "launch")]
    gate: Annotated[float, Field(ge=1, le=1e9, allow_inf_nan=False)]
    error: NotNegative
    error_us: NotNegative = 0.0
    points: Count
    regret: NotNegative
    worst_regret: NotNegative
    values: Annotated[dict[Value, Count], Field(min_length=1, max_length=512)]
    defaults: Annotated[dict[Count, Value], Field(min_length=1, max_length=512)]
    smallest: Point
    largest: Annotated[tuple[Point, ...], Field(min_length=1, max_length=512)]
    longer: Longer | None = None

    def model(self, sm_count: int, num_q_heads: int) -> ProvenModel:
        """What answers, for the device and heads of the table's header."""
        return ProvenModel(
            WaveModel(CUTTERS[self.cut](sm_count, num_q_heads), self.occupancy, self.us),
            Error(self.error, self.error_us),
            self.gate,
            self.values,
            self.smallest,
            self.largest,
        )

    def longer_model(self, sm_count: int, num_q_heads: int, most_tokens: int) -> LongerModel | None:
        """What answers for longer queries; the knob acts on batches of up to ``most_tokens``."""
        if self.longer is None:
            return None
        cutter = CUTTERS[self.cut](sm_count, num_q_heads)
        return self.longer.model(cutter, self.gate, most_tokens)

    def length(self, kv_len: int) -> Length:
        """A KV length, and what the backend may take untuned: one value where neighbours agree.

        Backends change their default somewhere between two measured lengths, where is not known
        here: then it is any value from one neighbour's to the other's.
        """
        defaults = self.defaults
        below = max((length for length in defaults if length <= kv_len), default=min(defaults))
        above = min((length for length in defaults if length >= kv_len), default=max(defaults))
        first, last = sorted((defaults[below], defaults[above]))
        inside = sorted(value for value in self.values if first < value < last)
        return Length(kv_len, tuple(dict.fromkeys((first, *inside, last))))
