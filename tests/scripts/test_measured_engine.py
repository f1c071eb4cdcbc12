import types

from measured_engine import StepClock


def test_clock_notes_only_the_steps_that_bring_tokens():
    answers = iter([[], ["token"], [], ["token"]])
    clock = StepClock(lambda: types.SimpleNamespace(outputs=next(answers)))
    for _ in range(4):
        clock()
    assert len(clock.times) == 2
    assert clock.times == sorted(clock.times)
