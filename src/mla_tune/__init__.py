"""mla-tune: measured settings for vLLM's multi-head latent attention backends."""

__all__ = [
    "EnvironmentFailure",
    "InputError",
    "Lookup",
    "MlaTuneError",
    "Plan",
    "Table",
    "TuneResult",
    "__version__",
    "tune",
]

import importlib
from typing import TYPE_CHECKING, Any

from mla_tune._version import __version__

if TYPE_CHECKING:
    from mla_tune.errors import EnvironmentFailure, InputError, MlaTuneError
    from mla_tune.plan.plan import Plan
    from mla_tune.table import Lookup, Table
    from mla_tune.tuning.api import TuneResult, tune

# `import mla_tune` happens inside every vLLM process; pydantic and YAML only where used.
_MODULES = {
    **dict.fromkeys(("EnvironmentFailure", "InputError", "MlaTuneError"), "mla_tune.errors"),
    **dict.fromkeys(("Lookup", "Table"), "mla_tune.table"),
    **dict.fromkeys(("TuneResult", "tune"), "mla_tune.tuning.api"),
    "Plan": "mla_tune.plan.plan",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
