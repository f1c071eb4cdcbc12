import os

import pytest

from fake_nvml import NOT_SUPPORTED, FakeNvml
from mla_tune.measuring.load import CoreLoad, GpuLoad, OthersLoad, load_watch_for

ME, OTHER, GONE = 10, 123, 999


def gpu_load(nvml):
    return GpuLoad(nvml.driver, ME, exists=lambda pid: pid in {ME, OTHER})


def test_another_process_on_the_gpu_is_named():
    nvml = FakeNvml()
    watch = gpu_load(nvml)
    nvml.samples += [(ME, 100, 90), (OTHER, 100, 12), (OTHER, 200, 40)]
    found = watch.others()
    assert found == OthersLoad("GPU", 0.4, (OTHER,))
    assert str(found) == "another process (pid 123) used up to 40% of the GPU meanwhile"
    assert watch.others() is None  # that was then


def test_a_run_alone_on_its_gpu_has_no_note():
    nvml = FakeNvml()
    watch = gpu_load(nvml)
    nvml.samples.append((ME, 100, 90))
    assert watch.others() is None


def test_what_used_the_gpu_before_is_no_matter():
    nvml = FakeNvml(samples=[(OTHER, 100, 90)])
    assert gpu_load(nvml).others() is None


def test_an_idle_desktop_is_no_load():
    nvml = FakeNvml()
    watch = gpu_load(nvml)
    nvml.samples += [(ME, 100, 90), (OTHER, 100, 4)]
    assert watch.others() is None


def test_where_ids_are_the_hosts_the_busiest_stranger_is_this_process():
    nvml = FakeNvml()
    watch = gpu_load(nvml)
    nvml.samples += [(GONE, 100, 90)]
    assert watch.others() is None
    nvml.samples += [(GONE, 200, 90), (GONE + 1, 200, 30), (OTHER, 200, 20)]
    assert watch.others() == OthersLoad("GPU", 0.3, (OTHER, GONE + 1))


def test_a_driver_that_does_not_say_is_no_load():
    assert gpu_load(FakeNvml(refuses={"processes": NOT_SUPPORTED})).others() is None
    assert load_watch_for("cuda", None).others() is None


class Cores:
    """Two cores whose counters a test moves."""

    def __init__(self):
        self.now_s = self.busy_s = self.own_s = 100.0
        self.watch = CoreLoad(
            lambda: self.busy_s, lambda: self.own_s, lambda: self.now_s, num_cores=2
        )

    def spend(self, seconds, own, others):
        self.now_s += seconds
        self.own_s += own
        self.busy_s += own + others


@pytest.mark.parametrize(
    ("others", "share"), [(0.0, None), (0.18, None), (0.22, 0.11), (1.0, 0.5), (2.0, 1.0)]
)
def test_others_on_the_cores_count_from_a_tenth_of_them(others, share):
    cores = Cores()
    cores.spend(1.0, own=0.9, others=others)
    found = cores.watch.others()
    assert (found and round(found.share, 3)) == share


def test_a_short_look_waits_for_more():
    cores = Cores()
    cores.spend(0.3, own=0.3, others=0.3)
    assert cores.watch.others() is None
    cores.spend(0.3, own=0.3, others=0.3)
    found = cores.watch.others()
    assert str(found) == "other processes used up to 50% of the cores meanwhile"
    cores.spend(1.0, own=1.0, others=0.0)
    assert cores.watch.others() is None


def test_counters_that_are_not_kept_are_no_load():
    cores = Cores()
    cores.now_s += 5.0
    cores.own_s += 5.0  # as under gVisor, whose /proc/stat stands still
    assert cores.watch.others() is None


def test_the_work_of_this_process_is_not_that_of_others():
    watch = CoreLoad.here()
    before = os.times()
    while os.times().elapsed - before.elapsed < 0.55:
        pass
    used_s = sum(os.times()[:2]) - sum(before[:2])
    found = watch.others()
    others = found.share if found else 0.0
    # All that ran here, this loop left out, fits in the time there was.
    assert others <= 1.0 - (used_s - 0.1) / (0.65 * len(os.sched_getaffinity(0)))
