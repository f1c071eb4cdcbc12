"""What stands in the place of vLLM's kernel, over a made-up kernel."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mla_tune.errors import UnavailableError
from mla_tune.plan.kernel_resources import KernelResources
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.vllm import compat
from mla_tune.vllm.triton_launch import KERNEL, VLLM_LAUNCH, TunedKernel, resources_of

LAUNCH = Plan(block_n=64, block_h=32, num_warps=8, num_stages=1)
NAMES = ("Q", "kv_group_num", "q_head_num", "BLOCK_N", "BLOCK_H")
OWN = {"BLOCK_N": 32, "BLOCK_H": 16, "num_warps": 4, "num_stages": 2}


class Kernel:
    """Notes what it is launched with, as `triton.jit` would launch it."""

    arg_names = NAMES
    warmup = "its own"

    def __init__(self) -> None:
        self.launches: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __getitem__(self, grid: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> str:
            self.launches.append((grid, args, kwargs))
            return "compiled"

        return run


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = SimpleNamespace(**{KERNEL: Kernel()})
    monkeypatch.setattr(compat, "module", lambda _: found)
    return found


def launched(module: Any, heads: int = 128, grid: Any = None, **changes: Any) -> Any:
    """Launch as vLLM does; returns the grid and the keywords that its kernel got."""
    tuned = getattr(module, KERNEL)
    arguments = {"kv_group_num": heads, "q_head_num": heads, **OWN, "Lk": 576, **changes}
    tuned[grid or (3, -(-heads // min(16, heads)), 5)]("query", **arguments)
    grid, args, kwargs = getattr(tuned, "kernel", tuned).launches.pop()
    assert args == ("query",)
    assert kwargs.pop("Lk") == 576
    return grid, {name: value for name, value in kwargs.items() if name in OWN}


def installed() -> TunedKernel:
    tuned = TunedKernel.of_vllm()
    assert tuned is not None
    return tuned


def test_without_a_launch_the_kernel_s_own_launcher_is_handed_out(module: Any) -> None:
    before = launched(module)
    tuned = installed()
    assert launched(module) == before == ((3, 8, 5), OWN)
    with tuned.launching(UNTUNED):
        assert launched(module) == before


@pytest.mark.parametrize(("heads", "blocks"), [(128, 4), (33, 2), (32, 1), (20, 1), (2, 1)])
def test_a_launch_has_its_constants_and_the_blocks_that_its_heads_need(
    module: Any, heads: int, blocks: int
) -> None:
    with installed().launching(LAUNCH):
        grid, constants = launched(module, heads)
    assert grid == (3, blocks, 5)
    assert constants == {"BLOCK_N": 64, "BLOCK_H": 32, "num_warps": 8, "num_stages": 1}


def test_what_a_launch_leaves_open_is_vllms(module: Any) -> None:
    with installed().launching(Plan(block_n=128)):
        assert launched(module) == ((3, 8, 5), OWN | {"BLOCK_N": 128})


def test_launches_within_launches_and_errors_put_back_what_was_there(module: Any) -> None:
    tuned = installed()

    def fail() -> None:
        with tuned.launching(UNTUNED):
            assert launched(module)[1] == OWN
            raise RuntimeError

    with tuned.launching(LAUNCH):
        with pytest.raises(RuntimeError):
            fail()
        assert launched(module)[1]["BLOCK_N"] == 64
    assert launched(module)[1] == OWN


@pytest.mark.usefixtures("module")
def test_it_is_installed_once() -> None:
    tuned = installed()
    assert installed() is tuned
    assert isinstance(tuned.kernel, Kernel)


def test_one_over_another_changes_nothing_twice(module: Any) -> None:
    """As where two copies of this package are loaded."""
    inner = installed()
    setattr(module, KERNEL, TunedKernel(inner))
    with inner.launching(LAUNCH):
        getattr(module, KERNEL)[3, 8, 5]("query", kv_group_num=128, q_head_num=128, **OWN)
    grid, _, kwargs = inner.kernel.launches.pop()
    assert (grid, kwargs["BLOCK_H"]) == ((3, 4, 5), 32)


def test_another_thread_launches_as_vllm_does(module: Any) -> None:
    seen: list[Any] = []
    with installed().launching(LAUNCH):
        thread = threading.Thread(target=lambda: seen.append(launched(module)[1]))
        thread.start()
        thread.join()
    assert seen == [OWN]


@pytest.mark.usefixtures("module")
def test_attributes_are_the_kernel_s() -> None:
    tuned = installed()
    assert (tuned.warmup, tuned.arg_names) == ("its own", NAMES)
    with pytest.raises(AttributeError, match="no_such"):
        tuned.no_such  # noqa: B018


def test_what_arrives_is_seen_behind_what_was_set(module: Any) -> None:
    tuned = installed()
    with tuned.observed() as seen:
        launched_through(module)
        with tuned.launching(LAUNCH):
            launched_through(module)
    assert seen == [VLLM_LAUNCH, LAUNCH]
    assert isinstance(tuned.kernel, Kernel)


def launched_through(module: Any) -> None:
    returned = getattr(module, KERNEL)[3, 8, 5](kv_group_num=128, q_head_num=128, **OWN)
    assert returned == "compiled"


@pytest.mark.parametrize(
    ("grid", "changes"),
    [((3, 9, 5), {}), ((3, 8), {}), (lambda _: (3, 8, 5), {}), (None, {"q_head_num": 256})],
)
def test_a_launch_unlike_vllms_is_left_alone(module: Any, grid: Any, changes: Any) -> None:
    """The check of what arrives finds it."""
    tuned = installed()
    with tuned.observed() as seen, tuned.launching(LAUNCH):
        arguments = {"kv_group_num": 128, "q_head_num": 128, **OWN, **changes}
        getattr(module, KERNEL)[grid or (3, 8, 5)](**arguments)
    assert seen == [VLLM_LAUNCH]


def test_a_release_without_the_constants_has_no_launches(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(Kernel):
        arg_names = ("Q", "kv_group_num", "q_head_num", "BLOCK_N")

    for kernel in (Other(), lambda: None, None):
        setattr(module, KERNEL, kernel)
        assert TunedKernel.of_vllm() is None
        assert getattr(module, KERNEL) is kernel

    def missing(_: str) -> None:
        raise UnavailableError("no such module")

    monkeypatch.setattr(compat, "module", missing)
    assert TunedKernel.of_vllm() is None


def test_what_a_launch_returns_says_what_its_kernel_takes(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = installed()
    with tuned.resources() as nothing:
        launched_through(module)
    compiled = SimpleNamespace(n_regs=168, n_spills=12, metadata=SimpleNamespace(shared=40_960))
    monkeypatch.setattr(Kernel, "__getitem__", lambda *_: lambda **_: compiled)
    with tuned.resources() as seen, tuned.observed() as launches, tuned.launching(LAUNCH):
        returned = getattr(module, KERNEL)[3, 8, 5](kv_group_num=128, q_head_num=128, **OWN)
    assert returned is compiled
    assert (nothing, seen, launches) == ([], [KernelResources(168, 12, 40_960)], [LAUNCH])
    assert isinstance(tuned.kernel, Kernel)


def test_a_launch_that_fails_takes_nothing(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    tuned = installed()

    def fail(**_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(Kernel, "__getitem__", lambda *_: fail)
    with tuned.resources() as seen, pytest.raises(RuntimeError):
        getattr(module, KERNEL)[3, 8, 5](kv_group_num=128, q_head_num=128, **OWN)
    assert seen == []


@pytest.mark.parametrize(
    "compiled", [None, SimpleNamespace(), SimpleNamespace(n_regs=168, n_spills=0)]
)
def test_what_says_nothing_of_itself_is_not_guessed(compiled: Any) -> None:
    assert resources_of(compiled) is None


@pytest.mark.vllm
def test_triton_s_own_launches_return_what_is_read(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    command = [sys.executable, str(Path(__file__).parent / "loaded_kernel.py")]
    env = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=env, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout.split("REPORT")[-1])
    (plain,), (squeezed,) = report["plain"], report["squeezed"]
    assert 96 < plain["registers"] <= 255
    assert plain["spills"] == 0
    assert plain["shared_bytes"] == report["shared"] > 0
    assert squeezed["registers"] <= 96
    assert squeezed["spills"] > 0
    assert report["unloaded"] is None
