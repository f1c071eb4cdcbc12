"""Latencies that tests of the tuner share, and what they ask of the device that has them."""

from fake_device import DEFAULT, FakeBench, splits
from mla_tune.tuning.settings import Settings

FEW = Settings().screening_rounds
MORE = Settings().trial_rounds - FEW

BETTER = {DEFAULT: 100.0, splits(1): 150.0, splits(2): 90.0, splits(8): 110.0}


def screening(bench):
    """Every plan that was tried, in order."""
    return list(dict.fromkeys(plans[-1] for _, plans in trials(bench)))


def trials(bench):
    """Races of screening, as (shape, plans): the plan on trial is the last, and a survivor is
    raced twice in a row."""
    raced = zip(bench.raced, bench.race_rounds, strict=True)
    return [race for race, rounds in raced if rounds in (FEW, MORE)]


def confirmations(bench):
    """Races of confirmations, as `trials`."""
    raced = zip(bench.raced, bench.race_rounds, strict=True)
    return [race for race, rounds in raced if rounds not in (FEW, MORE)]


class FailsLater(FakeBench):
    """A plan that works alone and dies in company."""

    def __init__(self, *args, later, **more):
        super().__init__(*args, **more)
        self.later = later

    def race(self, plans, rounds, seed, cases=None):
        confirming = rounds >= 8
        self.race_faults = dict(self.race_faults) | ({self.later: "died"} if confirming else {})
        return super().race(plans, rounds, seed, cases)


class FailsBeside(FakeBench):
    """A plan that works alone, and dies when it is timed beside a certain other one."""

    def __init__(self, *args, dying, other, **more):
        super().__init__(*args, **more)
        self.dying, self.other = dying, other

    def race(self, plans, rounds, seed, cases=None):
        self.race_faults = {self.dying: "died"} if set(plans) == {self.dying, self.other} else {}
        return super().race(plans, rounds, seed, cases)
