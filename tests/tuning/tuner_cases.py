"""Latencies that tests of the tuner share, and what they ask of the device that has them."""

from fake_device import DEFAULT, FakeBench, splits

BETTER = {DEFAULT: 100.0, splits(1): 150.0, splits(2): 90.0, splits(8): 110.0}


def screening(bench):
    """Every plan that was raced alone, in order; a survivor is raced twice in a row."""
    return list(dict.fromkeys(plans[0] for _, plans in bench.raced if len(plans) == 1))


class FailsLater(FakeBench):
    """A plan that works alone and dies in company."""

    def __init__(self, *args, later, **more):
        super().__init__(*args, **more)
        self.later = later

    def race(self, plans, rounds, seed):
        confirming = rounds >= 8
        self.race_faults = dict(self.race_faults) | ({self.later: "died"} if confirming else {})
        return super().race(plans, rounds, seed)
