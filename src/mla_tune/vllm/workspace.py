"""The workspace that vLLM's kernels share, and the buffers that live between runs.

vLLM keeps one buffer (a *slot*) for each microbatch and, on model runner V2 with DSpark, each of
two lanes; a request only ever grows the slot it runs in.
"""

__all__ = [
    "fixed_size",
    "manager",
    "scratch_tensors",
    "slots",
    "start_workspace",
    "stop_workspace",
]

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mla_tune.vllm import compat

_WORKSPACE = "vllm.v1.worker.workspace"


def start_workspace(device: Any) -> None:
    """Start the workspace that kernels share. It exists in 0.20 too, used by fewer backends."""
    compat.symbol(_WORKSPACE, "reset_workspace_manager")()
    compat.symbol(_WORKSPACE, "init_workspace_manager")(device)


def stop_workspace() -> None:
    """Drop the workspace that kernels share, and its memory."""
    compat.symbol(_WORKSPACE, "reset_workspace_manager")()


def manager() -> Any | None:
    """VLLM's workspace manager, if it has been started in this process."""
    module = compat.module(_WORKSPACE)
    return module.current_workspace_manager() if module.is_workspace_manager_initialized() else None


def slots() -> int:
    """How many buffers the workspace has; 0 without a manager.

    One for each of the two microbatches of ``enable_dbo``, times two lanes with DSpark (0.32 on).
    """
    found = manager()
    if found is None:
        return 0
    # A release that keeps them elsewhere may keep any number.
    return len(getattr(found, "_current_workspaces", (None, None)))


@contextmanager
def fixed_size() -> Iterator[None]:
    """Have the workspace refuse to grow meanwhile, as vLLM does once an engine serves."""
    found = manager()
    if found is None or found.is_locked():
        yield
        return
    found.lock()
    try:
        yield
    finally:
        found.unlock()


def scratch_tensors(builder: Any, impl: Any) -> Iterator[Any]:
    """The buffers that live between runs and hold nothing across them."""
    import torch

    found = manager()
    for part in vars(found).values() if found is not None else ():
        for item in part if isinstance(part, list) else [part]:
            if isinstance(item, torch.Tensor):
                yield item
    workspace = getattr(builder, "chunked_prefill_workspace", None)
    if workspace is not None:
        yield workspace
    cutlass: Any = getattr(impl, "_workspace", None)
    if hasattr(cutlass, "_workspace_buf"):
        yield cutlass._workspace_buf
