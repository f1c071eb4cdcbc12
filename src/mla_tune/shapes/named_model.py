"""The model that a name or a path means."""

__all__ = ["named_model"]

import os
from pathlib import Path

from mla_tune.errors import InputError, nearest_hint
from mla_tune.shapes.hub_cache import cached_config
from mla_tune.shapes.model import KnownModel
from mla_tune.shapes.model_config import load_model_config
from mla_tune.shapes.presets import PRESETS, SPARSE_PRESETS, preset_name


def named_model(name: str) -> KnownModel:
    """Resolve a preset, a ``config.json`` or its folder, or a name of Hugging Face's hub.

    What lies here is truer than what is known by name: a path wins over the hub's cache, and that
    over the preset that the last part of a name means. Paths are relative to the working folder.

    Raises:
        InputError: it is none of these, or a configuration that `model_of_config` refuses.
    """
    if name.lower() not in PRESETS:
        if os.path.exists(name):  # noqa: PTH110 - Path's raises on a name that is too long
            return load_model_config(Path(name))
        if cached := cached_config(name):
            return load_model_config(cached)
    preset = preset_name(name)
    if preset is not None:
        taken = f"dimensions taken from {preset}" if name.lower() != preset else ""
        return KnownModel(PRESETS[preset], SPARSE_PRESETS.get(preset), taken)
    if name.endswith(".json"):
        raise InputError(f"model configuration {name!r} does not exist", remedy="check the path")
    raise InputError(
        f"unknown model {name[:100]!r}",
        valid=f"{', '.join(PRESETS)}; a path to a config.json or its folder; a model in the local "
        "Hugging Face cache; or a mapping that gives num_q_heads and the dimensions",
        remedy=nearest_hint(name.rpartition("/")[2].lower(), PRESETS),
    )
