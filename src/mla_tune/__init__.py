"""mla-tune: measured settings for vLLM's multi-head latent attention backends."""

__all__ = ["Table", "__version__"]

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mla_tune.table import Table


def __getattr__(name: str) -> Any:
    # `import mla_tune` happens inside every vLLM process; pydantic and YAML only where used.
    if name == "Table":
        from mla_tune.table import Table

        return Table
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
