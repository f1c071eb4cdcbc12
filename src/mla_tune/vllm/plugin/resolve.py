"""Where vLLM's registries find our subclasses: ``mla_tune.vllm.plugin.resolve.TRITON_MLA``.

vLLM resolves a class path when it needs the class, in the process that needs it. If a release has
moved something that a subclass of ours uses, the subclass cannot be defined. The engine has to
start all the same, so vLLM's own class is returned then.
"""

__all__ = ["path_of", "tuned_backends", "vllms_backend"]

import importlib
import logging
from typing import Any

from mla_tune.registry import BACKENDS
from mla_tune.vllm.plugin.state import once


def tuned_backends() -> set[str]:
    """The names of the backends that have a class of ours."""
    return {backend.name for backend in BACKENDS if backend.plugin_class is not None}


def path_of(name: str) -> str:
    """The class path to register for a backend."""
    return f"{__name__}.{name}"


def __getattr__(name: str) -> Any:
    ours = BACKENDS[name].plugin_class if name in BACKENDS else None
    if ours is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return _resolved(ours)
    except Exception as error:
        vllms = vllms_backend(name)  # raises, if at all, what it would raise without us
        once(
            logging.ERROR,
            f"mla-tune: {name} runs as without tables: {type(error).__name__}: {error}",
            exc_info=error,
        )
        return vllms


def vllms_backend(name: str) -> Any:
    """VLLM's own class for a backend, whatever is registered for it."""
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    return _resolved(str(AttentionBackendEnum[name].value))


def _resolved(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)
