"""Subclasses of vLLM's attention backends that have a builder and an impl of ours."""

__all__ = ["tuned_backend"]

from typing import Any


def tuned_backend(vllms: Any, builder: Any, impl: Any) -> Any:
    """A subclass of vLLM's backend ``vllms`` that keeps its name, with our builder and impl."""
    fields = {
        "__doc__": "vLLM's backend under its own name, with our builder and impl.",
        "__module__": builder.__module__,
        "get_builder_cls": staticmethod(lambda: builder),
        "get_impl_cls": staticmethod(lambda: impl),
    }
    return type(f"Tuned{vllms.__name__}", (vllms,), fields)
