from mla_tune.cli.time_spent import Phase, TimeSpent


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_each_second_is_of_one_phase_of_the_shape_and_of_the_run():
    clock = Clock()
    time = TimeSpent(clock)
    clock.now = 40.0
    time.begin_shape()
    clock.now = 45.0
    time.enter(Phase.COMPILING)
    clock.now = 47.0
    time.enter(Phase.CONFIRMATION)
    clock.now = 50.0
    assert time.end_shape() == "10 s: 2 s compiling ahead, 5 s trials, 3 s confirmation"
    clock.now = 200.0
    told = "3 min: 40 s starts of processes and sessions, 2 s compiling ahead, 5 s trials, "
    assert time.in_all() == f"{told}3 s confirmation, 2 min the rest"


def test_of_several_devices_theirs_alone_is_counted():
    clock = Clock()
    time = TimeSpent(clock)
    clock.now = 5.0
    devices = [time.of_a_device() for _ in range(2)]
    for device in devices:
        device.begin_shape()
    clock.now = 9.0
    assert [device.end_shape() for device in devices] == ["4 s: 4 s trials"] * 2
    clock.now = 100.0
    assert time.in_all() == "13 s: 5 s starts of processes and sessions, 8 s trials"


def test_what_took_no_time_is_not_named():
    assert TimeSpent(Clock()).in_all() == "0 s"
