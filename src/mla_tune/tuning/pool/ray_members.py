"""The devices of a Ray cluster as the devices of one run.

Ray places an actor on each device, tells when its node is lost, and ends it with the run. Only the
measuring happens there; the search, the studies and the tables are the driver's, so a node that is
lost costs the trial that was under way and nothing else. One task a unit, as Ray would retry it by
itself, would start a process three times for each unit, and begin it anew after a loss.
"""

__all__ = ["RayBench", "ray_members"]

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from mla_tune._version import __version__
from mla_tune.device.card import card_hash
from mla_tune.environment import Environment
from mla_tune.errors import DeviceLost, InputError, MlaTuneError
from mla_tune.measuring.stopwatch import Samples
from mla_tune.measuring.worker_client import Limits, Stopped
from mla_tune.plan.compilation import Compilation
from mla_tune.plan.plan import Plan
from mla_tune.plan.space import PlanSpace
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, Workload
from mla_tune.tuning.pool.member import Member
from mla_tune.tuning.pool.remote_worker import RemoteWorker
from mla_tune.tuning.run_options import RunOptions

START_S = 300.0
"""How long a device may take to start its worker; one that other jobs of the cluster have does not
start at all."""


class RayBench:
    """The bench of a device on some node of the cluster.

    Args:
        actor: Ray's handle of a `RemoteWorker`.
        name: of the device, for messages.

    Attributes:
        notices: what the user should know of it.
    """

    def __init__(self, actor: Any, name: str) -> None:
        self._actor = actor
        self._name = name
        self._is_stopped = False
        self.clock = SimpleNamespace(now=time.monotonic)
        self.device = ""
        self.environment: Environment
        self.notices: tuple[str, ...] = ()

    def start(self, device: str, limits: Limits) -> None:
        """Have the worker started.

        Raises:
            InputError: the device is not there or in use, or its node has another version.
            DeviceLost: it does not start.
        """
        found = self._answer(self._actor.start.remote(device, limits), START_S)
        version, self.device, self._identity, self.environment, self.notices = found
        if version != __version__:
            raise InputError(
                f"{self._name} has mla-tune {version}, this is {__version__}",
                remedy="install the same version on all nodes",
            )

    def free_bytes(self) -> int:
        """As `WorkerBench.free_bytes`."""
        return int(self._ask("free_bytes"))

    def device_identity(self) -> str:
        """As `WorkerBench.device_identity`."""
        return str(self._identity)

    def open(self, setup: Setup) -> None:
        """As `Bench.open`."""
        self._ask("open", setup)

    def plan_space(self, shapes: Sequence[BatchShape]) -> PlanSpace:
        """As `Bench.plan_space`."""
        space: PlanSpace = self._ask("plan_space", tuple(shapes))
        return space

    def load(self, workload: Workload) -> None:
        """As `Bench.load`."""
        self._ask("load", workload)

    def compile(self, plans: Sequence[Plan]) -> Compilation:
        """As `Bench.compile`."""
        done: Compilation = self._ask("compile", tuple(plans))
        return done

    def race(
        self,
        plans: Sequence[Plan],
        rounds: int,
        seed: int,
        cases: Sequence[int] | None = None,
    ) -> dict[Plan, Samples]:
        """As `Bench.race`."""
        taken: dict[Plan, Samples] = self._ask("race", tuple(plans), rounds, seed, cases)
        return taken

    def verify(self, plan: Plan) -> None:
        """As `Bench.verify`."""
        self._ask("verify", plan)

    def renew(self) -> bool:
        """As `Bench.renew`."""
        return bool(self._ask("renew"))

    def close(self) -> None:
        """End the worker, and give the device back to the cluster."""
        import ray

        ray.kill(self._actor)

    def stop(self) -> None:
        """As `WorkerBench.stop`."""
        self._is_stopped = True
        self.close()

    def _ask(self, name: str, *arguments: Any) -> Any:
        if self._is_stopped:
            raise Stopped
        return self._answer(self._actor.ask.remote(name, *arguments), None)

    def _answer(self, asked: Any, limit_s: float | None) -> Any:
        """Wait for an answer; how long a plan may take, the worker over there sees to.

        Raises:
            DeviceLost: the actor has ended, mostly with its node, or did not start in time.
            MlaTuneError: what the bench raised.
        """
        import ray

        try:
            kind, content = ray.get(asked, timeout=limit_s)
        except ray.exceptions.GetTimeoutError:
            raise DeviceLost(f"{self._name} has not started within {limit_s:g} s") from None
        except ray.exceptions.RayError as error:
            if self._is_stopped:
                raise Stopped from None
            reason = str(error).strip().splitlines()[0]
            raise DeviceLost(f"{self._name} is lost ({type(error).__name__}: {reason})") from None
        if kind == "failed":
            assert isinstance(content, MlaTuneError)
            raise content
        return content


@dataclass(frozen=True)
class _Place:
    """Where an actor is to be."""

    node: str
    name: str
    device: str
    resources: dict[str, float]


@contextmanager
def ray_members(options: RunOptions, notice: Callable[[str], None]) -> Iterator[list[Member]]:
    """An actor on each device of the cluster at ``options.ray``, ended with the run.

    Args:
        options: of the run; with a device of ``cpu``, one actor a node.
        notice: told of devices that cannot be used.

    Raises:
        InputError: Ray is not installed, there is no cluster, or not one device can be used.
    """
    ray = _connected(options.ray or "auto")
    limits = Limits(sample_s=options.sample_timeout, warm_up_s=options.plan_timeout)
    benches: list[RayBench] = []
    try:
        places = _places(ray.nodes(), options.device)
        starts = []
        for place in places:
            bench = RayBench(_actor(ray, place), place.name)
            benches.append(bench)
            starts.append(_Start(bench, place.device, limits))
        members = []
        for place, bench, start in zip(places, benches, starts, strict=True):
            problem = start.result()
            if problem is not None:
                notice(f"{place.name} is left out: {problem}")
                continue
            members.append(Member(place.name, bench, card_hash(bench.device_identity())))
            for told in bench.notices:
                notice(f"{place.name}: {told}")
        if not members:
            raise InputError(
                f"no device of the Ray cluster at {options.ray} can be used",
                remedy="'ray status' shows what the cluster has; --device cpu measures on its CPUs",
            )
        yield members
    finally:
        for bench in benches:
            bench.close()
        ray.shutdown()


class _Start:
    """The start of one worker, beside those of the others."""

    def __init__(self, bench: RayBench, device: str, limits: Limits) -> None:
        self._problem: MlaTuneError | None = None
        self._thread = threading.Thread(target=self._run, args=(bench, device, limits), daemon=True)
        self._thread.start()

    def _run(self, bench: RayBench, device: str, limits: Limits) -> None:
        try:
            bench.start(device, limits)
        except MlaTuneError as error:
            self._problem = error

    def result(self) -> MlaTuneError | None:
        """Why it did not start, or None."""
        self._thread.join()
        return self._problem


def _connected(address: str) -> Any:
    try:
        import ray
    except ImportError:
        raise InputError(
            "--ray needs Ray, which is not installed here",
            remedy="pip install 'mla-tune[ray]', in the environment of every node",
        ) from None
    try:
        _check_reachable(address)
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"no Ray cluster at {address}: {reason}",
            remedy="'ray start --head' starts one; --ray HOST:PORT names it",
        ) from None
    return ray


def _check_reachable(address: str) -> None:
    """Ray itself tries for minutes. Raises OSError; of another form than HOST:PORT, Ray judges."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


def _places(nodes: Sequence[dict[str, Any]], device: str) -> list[_Place]:
    """An actor for each GPU of the living nodes, or for each node's processor.

    Args:
        nodes: as of ``ray.nodes()``.
        device: ``cpu`` for processors, ``auto`` for GPUs where there is one.

    Raises:
        InputError: no node has what is wanted.
    """
    alive = (node for node in nodes if node["Alive"])
    living = sorted(alive, key=lambda node: (node["NodeManagerAddress"], node["NodeID"]))
    gpus = {node["NodeID"]: int(node["Resources"].get("GPU", 0)) for node in living}
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(
            f"--ray measures on all devices of a cluster, not on {device}",
            valid="--device auto, cpu or cuda",
        )
    on_cpu = device == "cpu" or (device == "auto" and not any(gpus.values()))
    places = []
    for node in living:
        key, host = node["NodeID"], node["NodeManagerAddress"]
        if on_cpu:
            places.append(_Place(key, f"{host} cpu", "cpu", {"num_cpus": 1}))
            continue
        places += [
            # Ray shows an actor its own GPU alone, as the first one.
            _Place(key, f"{host} gpu{index}", "cuda", {"num_cpus": 1, "num_gpus": 1})
            for index in range(gpus[key])
        ]
    if not places:
        raise InputError("no node of the Ray cluster has a GPU", remedy="give --device cpu")
    return places


def _actor(ray: Any, place: _Place) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    where = NodeAffinitySchedulingStrategy(node_id=place.node, soft=False)
    wanted = {"scheduling_strategy": where, "max_restarts": 0, **place.resources}
    return ray.remote(RemoteWorker).options(**wanted).remote()
