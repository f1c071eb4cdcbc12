import random

import pytest

from mla_tune.measuring.stopwatch import Samples
from mla_tune.tuning.second_look import tells_enough


def rounds(noise, *gains):
    """16 rounds of a default and of a plan with ``gains`` at the cases, of noise each."""
    draw = random.Random(1)

    def of(latencies_us):
        return Samples(
            tuple(
                tuple(us * draw.lognormvariate(0.0, noise) for us in latencies_us)
                for _ in range(16)
            )
        )

    return of([100.0] * len(gains)), of([100.0 / gain for gain in gains])


@pytest.mark.parametrize(
    ("noise", "gain", "is_enough"),
    [
        (0.002, 1.005, True),  # processes differ by more
        (0.01, 1.02, False),
        (0.01, 1.5, True),  # a percent more or less of a half
        (0.05, 1.5, False),
    ],
)
def test_rounds_are_enough_where_more_would_say_little_more(noise, gain, is_enough):
    assert tells_enough(*rounds(noise, gain), (1.0,)) == is_enough


@pytest.mark.parametrize(("noise", "at_guard", "is_enough"),
                         [(0.01, 1.2, True), (0.01, 1.0, False), (0.002, 1.0, True)])  # fmt: skip
def test_a_guard_near_a_loss_is_to_be_known_too(noise, at_guard, is_enough):
    assert tells_enough(*rounds(noise, 1.5, at_guard), (1.0, 0.0)) == is_enough
