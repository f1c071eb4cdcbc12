"""TRITON_MLA's launch: an object in the place of vLLM's decode kernel that sets its constants.

Used by the session that measures launches, and by the plugin that applies them.

vLLM writes the constants out where it launches the kernel (`_decode_grouped_att_m_fwd`; read in
0.20.2, 0.26.0, 0.32.0 and 0.33.0, which differ in the kernel's arguments and not in these), so
there is nothing to configure. `TunedKernel` stands under the kernel's name in vLLM's module and
hands every launch on: as it is while no launch is set, and with other constants while one is.
"""

__all__ = ["KERNEL", "KERNEL_MODULE", "VLLM_LAUNCH", "TunedKernel", "is_refusal", "resources_of"]

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from mla_tune.errors import UnavailableError
from mla_tune.plan.kernel_resources import KernelResources
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
        watched = _Watched(self.kernel, before=lambda kwargs: seen.append(_constants(kwargs)))
        with set_for_now(self, "kernel", watched):
            yield seen

    @contextmanager
    def resources(self) -> Iterator[list[KernelResources]]:
        """Collect what the kernel of every launch takes; nothing of an interpreted one."""
        seen: list[KernelResources] = []

        def note(compiled: Any) -> None:
            found = resources_of(compiled)
            if found is not None:
                seen.append(found)

        with set_for_now(self, "kernel", _Watched(self.kernel, after=note)):
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


def _nothing(_: Any) -> None:
    pass


class _Watched:
    """In the place of a kernel for a while: tells of what it is launched with, and what returns."""

    def __init__(
        self,
        kernel: Any,
        before: Callable[[Mapping[str, Any]], None] = _nothing,
        after: Callable[[Any], None] = _nothing,
    ) -> None:
        self._kernel = kernel
        self._before = before
        self._after = after

    def __getitem__(self, grid: Any) -> Any:
        launch = self._kernel[grid]

        def telling(*args: Any, **kwargs: Any) -> Any:
            self._before(kwargs)
            compiled = launch(*args, **kwargs)
            self._after(compiled)
            return compiled

        return telling

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernel, name)


def resources_of(compiled: Any) -> KernelResources | None:
    """What a kernel takes, by what launching it has returned: Triton's compiled kernel.

    Its registers and spills are known once it is loaded on a device (`CompiledKernel._init_handles`
    of Triton 3.9). None for the interpreter, which returns nothing.
    """
    registers, spills = (getattr(compiled, name, None) for name in ("n_regs", "n_spills"))
    shared_bytes = getattr(getattr(compiled, "metadata", None), "shared", None)
    if registers is None or spills is None or shared_bytes is None:
        return None
    return KernelResources(int(registers), int(spills), int(shared_bytes))


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


def _constants(arguments: Mapping[str, Any]) -> Plan:
    """The constants among a launch's arguments."""
    found = {knob: arguments.get(argument) for knob, argument in _ARGUMENTS.items()}
    return Plan(**{knob: value for knob, value in found.items() if isinstance(value, int)})


def _head_blocks(arguments: Mapping[str, Any]) -> int:
    """Thread blocks for the heads of one token: a block takes no heads of a second KV head."""
    heads_per_block = min(int(arguments["BLOCK_H"]), int(arguments[_GROUP]))
    return -(-int(arguments[_HEADS]) // heads_per_block)
