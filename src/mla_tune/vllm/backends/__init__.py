"""VLLM's MLA backends, one a file: each module in here has its object under the name BACKEND.

A file that is added here is found; nothing else has to name it.
"""

__all__ = ["found"]

import importlib
import pkgutil

from mla_tune.vllm.backend import VllmBackend


def found() -> tuple[VllmBackend, ...]:
    """Every backend: dense before sparse, then portable, Hopper's and Blackwell's."""
    modules = [
        importlib.import_module(f"{__name__}.{entry.name}")
        for entry in pkgutil.iter_modules(__path__)
    ]
    backends: list[VllmBackend] = [module.BACKEND for module in modules]
    return tuple(sorted(backends, key=lambda b: (b.sparse, b.majors, b.module)))
