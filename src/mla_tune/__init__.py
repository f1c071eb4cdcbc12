"""mla-tune: measured settings for vLLM's multi-head latent attention backends."""

__all__ = ["Table", "TuneResult", "__version__", "tune"]

from typing import TYPE_CHECKING, Any

from mla_tune._version import __version__

if TYPE_CHECKING:
    from mla_tune.table import Table
    from mla_tune.tuning.api import TuneResult, tune


def __getattr__(name: str) -> Any:
    # `import mla_tune` happens inside every vLLM process; pydantic and YAML only where used.
    if name == "Table":
        from mla_tune.table import Table

        return Table
    if name in ("TuneResult", "tune"):
        import mla_tune.tuning.api

        return getattr(mla_tune.tuning.api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
