"""How much a run measures before it decides."""

__all__ = ["Settings"]

from dataclasses import dataclass

from mla_tune.tuning.study import Policy


@dataclass(frozen=True)
class Settings:
    """How much to measure before a verdict.

    Attributes:
        min_speedup: the publish gate; see `Contest`.
        screening_rounds: samples before a plan may be dropped.
        trial_rounds: samples of a plan that is not dropped.
        finalists: how many plans at least go into confirmation beside the default, and ...
        most_finalists: ... how many at most, when they are within `NEAR_BEST` of the best.
        confirmation_rounds: interleaved rounds at most, and ...
        confirmation_s: ... seconds at most (the rounds under way are finished).
        processes: in how many processes, one after another, a plan is raced before it is published.
        process_rounds: interleaved rounds in each of them after the first.
        policy: how plans are proposed; None: by the size of the space.
        launches: as `launches_in` takes it.
    """

    min_speedup: float = 1.01
    screening_rounds: int = 3
    trial_rounds: int = 8
    finalists: int = 3
    most_finalists: int = 6
    confirmation_rounds: int = 96
    confirmation_s: float = 30.0
    processes: int = 3
    process_rounds: int = 48
    policy: Policy | None = None
    launches: str | None = None
