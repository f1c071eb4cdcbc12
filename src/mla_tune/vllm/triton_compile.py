"""Compiling Triton kernels ahead: what a launch would compile, on all cores, into Triton's cache.

A launch compiles in the process that launches, one kernel after the other. Here a launch is taken
down instead of being made (`recorded`), and compiled by other processes (`triton_compiler`). A real
launch with such arguments finds the result in Triton's persistent cache (``TRITON_CACHE_DIR``),
whose key is made of the kernel's source, the arguments' types, divisibility by 16 and ones, its
constants and options, the target and the compiler. All of these come from Triton's own code, run
over stand-ins for the tensors (`Pointer`). Only the driver, which those processes do not have, is
replaced by one that knows the target: nothing else of it is used until a kernel is loaded (read in
Triton 3.6 and 3.9).
"""

__all__ = [
    "KernelCall",
    "Pointer",
    "active_target",
    "compiled",
    "recorded",
]

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from mla_tune.vllm.observe import set_for_now


@dataclass(frozen=True)
class Pointer:
    """In the place of a tensor: what Triton asks of one before it compiles.

    Attributes:
        type_name: torch's name of the dtype, such as ``bfloat16``.
        address: where its data lies, modulo 16.
    """

    type_name: str
    address: int

    @property
    def dtype(self) -> Any:
        import torch

        return getattr(torch, self.type_name)

    def data_ptr(self) -> int:
        """A number that is divisible by 16 where the address is."""
        return self.address


@dataclass(frozen=True)
class KernelCall:
    """A launch of one kernel, without its grid and its data.

    Attributes:
        module, name: where the kernel is found.
        arguments: by position; whole numbers stand for all that Triton compiles alike.
        named: by name, in the order of the names.
    """

    module: str
    name: str
    arguments: tuple[Any, ...]
    named: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        constants = ", ".join(f"{name}={value}" for name, value in self.named)
        return f"{self.name}({constants})"


@contextmanager
def recorded(module: ModuleType) -> Iterator[list[KernelCall]]:
    """Take down the launches of the kernels in ``module`` for a while; nothing is launched."""
    calls: list[KernelCall] = []
    with ExitStack() as stack:
        for name, value in list(vars(module).items()):
            if _is_compiled_by_triton(value):
                stack.enter_context(set_for_now(module, name, _Recorder(value, name, calls)))
            elif _is_compiled_by_triton(kernel := getattr(value, "kernel", None)):
                # `TunedKernel` stands in the place of Triton's.
                stack.enter_context(set_for_now(value, "kernel", _Recorder(kernel, name, calls)))
        yield calls


def _is_compiled_by_triton(kernel: Any) -> bool:
    try:
        from triton.runtime.jit import JITFunction
    except ImportError:
        return False
    return isinstance(kernel, JITFunction)


class _Recorder:
    """In the place of a kernel: takes its launches down."""

    def __init__(self, kernel: Any, name: str, calls: list[KernelCall]) -> None:
        self._kernel = kernel
        self._name = name
        self._calls = calls

    def __getitem__(self, grid: Any) -> Any:
        del grid

        def record(*args: Any, **kwargs: Any) -> None:
            named = tuple((name, _without_data(kwargs[name])) for name in sorted(kwargs))
            arguments = tuple(_alike(_without_data(value)) for value in args)
            module = self._kernel.fn.__module__
            self._calls.append(KernelCall(module, self._name, arguments, named))

        return record

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernel, name)


def _without_data(value: Any) -> Any:
    if hasattr(value, "data_ptr"):
        return Pointer(str(value.dtype).removeprefix("torch."), value.data_ptr() % 16)
    return value


def _alike(value: Any) -> Any:
    """One number for all that a kernel is compiled alike for: by type, ones and multiples of 16."""
    if type(value) is not int or value == 1:
        return value
    return (1 << 40 if abs(value) >= 1 << 31 else 0) + (16 if value % 16 == 0 else 3)


def active_target() -> Any:
    """What Triton compiles for in this process: the active device."""
    from triton.runtime import driver

    return driver.active.get_current_target()


class _Driver:
    """A driver that knows its target, and has no device."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        del device
        return 0


def compiled(call: KernelCall, target: Any) -> bool:
    """Compile what ``call`` launches into Triton's cache; whether it was not there yet.

    Raises:
        Exception: whatever the compiler finds wrong.
    """
    from triton import knobs
    from triton.runtime import driver

    hits: list[bool] = []

    def listen(**told: Any) -> None:
        hits.append(told["cache_hit"])

    driver.set_active(_Driver(target))
    knobs.compilation.listener = listen
    kernel = getattr(importlib.import_module(call.module), call.name)
    kernel.warmup(*call.arguments, grid=(1,), **dict(call.named))
    return not all(hits)
