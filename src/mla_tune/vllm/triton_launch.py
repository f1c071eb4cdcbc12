"""TRITON_MLA's launch: an object in the place of vLLM's decode kernel that sets its constants.

Used by the session that measures launches, and by the plugin that applies them.

vLLM writes the constants out where it launches the kernel (`_decode_grouped_att_m_fwd`; read in
0.20.2, 0.26.0, 0.32.0 and 0.33.0, which differ in the kernel's arguments and not in these), so
there is nothing to configure. `TunedKernel` stands under the kernel's name in vLLM's module and
hands every launch on: as it is while no launch is set, and with other constants while one is.
"""

__all__ = ["KERNEL", "KERNEL_MODULE", "VLLM_LAUNCH", "TunedKernel", "is_refusal"]

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from mla_tune.errors import UnavailableError
from mla_tune.plan.launch import LAUNCH_KNOBS
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.vllm import compat
from mla_tune.vllm.observe import set_for_now

KERNEL_MODULE = "vllm.v1.attention.ops.triton_decode_attention"
KERNEL = "_fwd_grouped_kernel_stage1"
VLLM_LAUNCH = Plan(block_n=32, block_h=16, num_warps=4, num_stages=2)
"""VLLM's own constants, on every NVIDIA GPU and for all heads and dimensions of MLA."""

# How the kernel's launch spells the knobs, and what says how many thread blocks the heads need.
_ARGUMENTS = dict(zip(LAUNCH_KNOBS, ("BLOCK_N", "BLOCK_H", "num_warps", "num_stages"), strict=True))
_HEADS, _GROUP = "q_head_num", "kv_group_num"
_NEEDED = frozenset((*_ARGUMENTS.values(), _HEADS, _GROUP))
# Those that Triton takes for itself and the kernel does not declare.
_TRITONS_OWN = frozenset(("num_warps", "num_stages"))

# Of the thread that is launching: the microbatches of a step are launched by two at once.
_set_launch: ContextVar[Plan] = ContextVar("mla_tune_launch", default=UNTUNED)


class TunedKernel:
    """In the place of vLLM's kernel: its launches, with the constants that are set.

    A launch that is not made as vLLM's releases make it is handed on as it is. Whoever sets a
    launch has to look at what has arrived (`observed`).

    Args:
        kernel: vLLM's, compiled or interpreted by Triton.
    """

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    @classmethod
    def of_vllm(cls) -> "TunedKernel | None":
        """Put one in the place of the installed vLLM's kernel, or find the one that stands there.

        None where this release has no such kernel, or one that takes other constants.
        """
        try:
            module = compat.module(KERNEL_MODULE)
        except UnavailableError:
            return None
        kernel = getattr(module, KERNEL, None)
        if isinstance(kernel, cls):
            return kernel
        # Where Triton is off, vLLM has a plain function under the name.
        declared = getattr(kernel, "arg_names", ())
        if not set(declared) >= _NEEDED - _TRITONS_OWN:
            return None
        tuned = cls(kernel)
        setattr(module, KERNEL, tuned)
        return tuned

    @contextmanager
    def launching(self, launch: Plan) -> Iterator[None]:
        """Launch with the constants of ``launch`` for a while; with an empty one as vLLM does."""
        before = _set_launch.set(launch)
        try:
            yield
        finally:
            _set_launch.reset(before)

    @contextmanager
    def observed(self) -> Iterator[list[Plan]]:
        """Collect the constants of every launch, as they reach vLLM's kernel."""
        seen: list[Plan] = []
        with set_for_now(self, "kernel", _Watched(self.kernel, seen)):
            yield seen

    def __getitem__(self, grid: Any) -> Any:
        launch = _set_launch.get()
        return partial(self._launch, launch, grid) if launch else self.kernel[grid]

    def _launch(self, launch: Plan, grid: Any, /, *args: Any, **kwargs: Any) -> Any:
        if _as_expected(grid, kwargs):
            batch, _, splits = grid
            kwargs |= {_ARGUMENTS[knob]: value for knob, value in launch.items()}
            grid = (batch, _head_blocks(kwargs), splits)
        return self.kernel[grid](*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "kernel":  # not yet set: a copy in the making
            raise AttributeError(name)
        return getattr(self.kernel, name)


class _Watched:
    """In the place of a kernel for a while: notes what it is launched with."""

    def __init__(self, kernel: Any, seen: list[Plan]) -> None:
        self._kernel = kernel
        self._seen = seen

    def __getitem__(self, grid: Any) -> Any:
        launch = self._kernel[grid]

        def noting(*args: Any, **kwargs: Any) -> Any:
            found = {knob: kwargs.get(argument) for knob, argument in _ARGUMENTS.items()}
            whole = {knob: value for knob, value in found.items() if isinstance(value, int)}
            self._seen.append(Plan(**whole))
            return launch(*args, **kwargs)

        return noting

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernel, name)


def is_refusal(error: Exception) -> bool:
    """Whether Triton could not compile a kernel, or the GPU has not what the kernel needs.

    Nothing has been launched then. A failing pass of its compiler has no class of Triton's.
    """
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return "TritonError" in kinds or "PassManager" in str(error)


def _as_expected(grid: Any, arguments: Mapping[str, Any]) -> bool:
    """Whether vLLM has launched as in the releases that were read."""
    return (
        isinstance(grid, tuple)
        and len(grid) == 3
        and arguments.keys() >= _NEEDED
        and grid[1] == _head_blocks(arguments)
    )


def _head_blocks(arguments: Mapping[str, Any]) -> int:
    """Thread blocks for the heads of one token: a block takes no heads of a second KV head."""
    heads_per_block = min(int(arguments["BLOCK_H"]), int(arguments[_GROUP]))
    return -(-int(arguments[_HEADS]) // heads_per_block)
