"""The backends whose plans have no split count, by their names: ``without_splits.FLASHMLA``.

Only their threshold and their prefill backend are set, so they need no code of their own. vLLM has
the modules of some only on the GPUs that they are for, so each class is made when it is asked for.
"""

__all__ = ["tuned"]

from typing import Any

from mla_tune.errors import UnavailableError
from mla_tune.registry import BACKENDS
from mla_tune.vllm.plugin.at_load import ReservesAtLoad
from mla_tune.vllm.plugin.builder import TunedBuilder
from mla_tune.vllm.plugin.resolve import vllms_backend
from mla_tune.vllm.plugin.subclass import tuned_backend


def __getattr__(name: str) -> Any:
    if not name.isupper():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()[name] = tuned(name, vllms_backend(name))
    return made


def tuned(name: str, vllms: Any) -> Any:
    """A subclass of vLLM's backend ``vllms`` that is called ``name`` in tables.

    Raises:
        UnavailableError: a sparse builder does not divide its batches by a threshold (0.20).
    """
    builder, impl = vllms.get_builder_cls(), vllms.get_impl_cls()
    is_sparse = name in BACKENDS and BACKENDS[name].sparse
    if is_sparse and not hasattr(builder, "require_uniform_decodes"):
        raise UnavailableError("this vLLM's sparse builder does not divide its batches")
    ours = {"__module__": __name__, "mla_tune_backend": name}
    made = tuned_backend(
        vllms,
        type(f"Tuned{builder.__name__}", (TunedBuilder, builder), {**ours}),
        type(f"Tuned{impl.__name__}", (ReservesAtLoad, impl), {**ours}),
    )
    # The platform of CUDA names a class that it has found by its module and qualified name, and
    # vLLM's selector looks it up by that.
    made.__qualname__ = name
    return made
