"""Two nodes of Ray on one machine, started by ``ray start``; and places in made-up clusters."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

import mla_tune
from mla_tune.device.lock import FOLDER_VARIABLE
from mla_tune.errors import InputError
from mla_tune.tuning.pool.ray_members import _places
from mla_tune.tuning.reporters import SilentReporter

SPECS = ("q1s64", "2q1s64", "2q1s128", "4q1s64", "4q2s64", "q64", "4q1s128", "8q1s64")
TINY = {
    "model": {"name": "tiny", "num_q_heads": 2, "kv_lora_rank": 32, "qk_nope_head_dim": 16}
    | {"qk_rope_head_dim": 8, "v_head_dim": 16},
    "batch_specs": list(SPECS),
}
SOURCE = Path(mla_tune.__file__).parents[1]
START_S = 120
SECOND = "127.0.0.2 cpu"


class Node:
    """``ray start``, until it is killed with all that it has started."""

    def __init__(self, folder, *arguments):
        folder.mkdir()
        self._log = folder / "log"
        own = {FOLDER_VARIABLE: str(folder), "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
        # A node counts as lost after a second, where Ray would wait for half a minute.
        own |= {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "2"}
        small = ("--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats")
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [Path(sys.executable).parent / "ray", "start", "--block", *small, *arguments],
                env=os.environ | own,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self):
        deadline = time.monotonic() + START_S
        while "Ray runtime started" not in self._log.read_text():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.2)

    def kill(self):
        if self._process.poll() is None:
            kill_whole(self.pid)
        self._process.wait()

    @property
    def pid(self):
        return self._process.pid


def kill_whole(pid):
    """SIGKILL for a process and all below it."""
    whole = psutil.Process(pid)
    for process in [*whole.children(recursive=True), whole]:
        process.kill()


@pytest.fixture
def short_folder():
    """Paths of sockets have 107 letters at most."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        yield folder


@pytest.fixture
def cluster(tmp_path, short_folder, monkeypatch):
    """The address of a cluster, and its second node."""
    # Else Ray looks for a token in the user's home folder.
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    port = address.partition(":")[2]
    nodes = []
    try:
        head = ("--head", f"--port={port}", "--node-ip-address=127.0.0.1")
        files = f"--temp-dir={short_folder}"
        nodes.append(Node(tmp_path / "head", *head, files, "--include-dashboard=false"))
        nodes[0].wait()
        nodes.append(Node(tmp_path / "node", f"--address={address}", "--node-ip-address=127.0.0.2"))
        nodes[1].wait()
        yield address, nodes[1]
    finally:
        for node in nodes:
            node.kill()


class KillsItsNode(SilentReporter):
    """Counts trials by device, and kills a node once its device has taken a few."""

    def __init__(self, pid):
        self.pid = pid
        self.trials = Counter()
        self.by_device = Counter()
        self.notices = []

    def on(self, device):
        return OnDevice(device, self)

    def skipped(self, what):
        self.notices.append(what)


class OnDevice(SilentReporter):
    def __init__(self, device, whole):
        self.device = device
        self.whole = whole

    def skipped(self, what):
        self.whole.skipped(what)

    def tried(self, workload, outcome, best_us):
        del best_us
        self.whole.trials[str(workload), outcome.plan] += 1
        self.whole.by_device[self.device] += 1
        if self.device == SECOND and self.whole.by_device[SECOND] == 3:
            kill_whole(self.whole.pid)


def drive(address, pid, folder):
    """Tune on the cluster; prints what the test looks at."""
    reporter = KillsItsNode(int(pid))
    result = mla_tune.tune(
        TINY,
        backends="TORCH_MLA",
        device="cpu",
        ray=address,
        out=Path(folder) / "tables",
        study_dir=Path(folder) / "study",
        confirm_seconds=0.3,
        processes=2,
        reporter=reporter,
    )
    told = {
        "failures": [failure.what for failure in result.failures],
        "shapes": [[entry.shape for entry in tuned.entries] for tuned in result.tables],
        "times": sorted(set(reporter.trials.values())),
        "by_device": reporter.by_device,
        "notices": reporter.notices,
    }
    print(json.dumps(told))


@pytest.mark.ray
def test_a_node_is_killed_in_the_middle_and_every_unit_is_done_once(cluster, tmp_path):
    address, node = cluster
    # In a process of its own: Ray leaves threads behind, and other tests fork.
    command = [sys.executable, __file__, address, str(node.pid), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    assert told["failures"] == []
    assert told["shapes"] == [list(SPECS)]
    assert told["times"] == [1]
    assert len(told["by_device"]) == 2
    assert told["by_device"][SECOND] == 3
    assert any(f"{SECOND} is lost" in notice for notice in told["notices"]), told["notices"]


def test_without_a_cluster_the_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no Ray cluster at 127.0.0.1:1") as caught:
        mla_tune.tune(TINY, ray="127.0.0.1:1", backends="TORCH_MLA", study_dir=tmp_path / "study")
    assert "ray start" in caught.value.remedy


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="not installed") as caught:
        mla_tune.tune(TINY, ray="auto", backends="TORCH_MLA", study_dir=tmp_path / "study")
    assert "mla-tune[ray]" in caught.value.remedy


def node(name, gpus=0, *, alive=True):
    return {"NodeID": name, "NodeManagerAddress": name, "Alive": alive, "Resources": {"GPU": gpus}}


def test_each_gpu_of_a_living_node_has_a_place():
    places = _places([node("a", 2), node("b", 1), node("c"), node("d", 4, alive=False)], "auto")
    assert [place.name for place in places] == ["a gpu0", "a gpu1", "b gpu0"]
    assert {place.device for place in places} == {"cuda"}
    assert {place.resources["num_gpus"] for place in places} == {1}


def test_without_gpus_or_where_asked_for_each_node_measures_on_its_processor():
    assert [place.device for place in _places([node("a"), node("b")], "auto")] == ["cpu", "cpu"]
    assert [place.name for place in _places([node("a", 8)], "cpu")] == ["a cpu"]


@pytest.mark.parametrize(("device", "problem"), [("cuda", "a GPU"), ("cuda:1", "not on cuda:1")])
def test_what_no_node_has_is_refused(device, problem):
    with pytest.raises(InputError, match=problem):
        _places([node("a")], device)


if __name__ == "__main__":
    drive(*sys.argv[1:])
