"""A model's own configuration, as Hugging Face's config.json holds it and an engine has it."""

__all__ = ["load_model_config", "model_of_config"]

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mla_tune.errors import InputError
from mla_tune.files.regular_file import read_text
from mla_tune.shapes.model import KnownModel, MlaDimensions

MOST_BYTES = 16 * 2**20
# Where multimodal models keep the part that is a language model; the last is an omni model's.
_INNER = ("text_config", "language_config", "llm_config", "thinker_config")
_MOST_LEVELS = 4

_Dimension = Annotated[int, Field(strict=True, ge=1, le=65536)]


class _Attention(BaseModel):
    """The keys that count; their names are those of transformers' DeepseekV3Config."""

    model_config = ConfigDict(extra="ignore")

    num_attention_heads: _Dimension
    kv_lora_rank: _Dimension
    qk_nope_head_dim: _Dimension
    qk_rope_head_dim: Annotated[int, Field(strict=True, ge=0, le=65536)]
    v_head_dim: _Dimension
    index_topk: _Dimension | None = None


# What vLLM's bailing_moe_linear.py and bailing_moe_v3.py take where a config.json leaves it out, as
# transformers' classes of DeepSeek-V2, V3 and Kimi do.
_LEFT_OUT = {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}


def load_model_config(path: Path) -> KnownModel:
    """The dimensions in a ``config.json``, or in that of a model's folder.

    Raises:
        InputError: missing, unreadable, over 16 MiB, not JSON, or not of a model with multi-head
            latent attention; names the file and the key.
    """
    found = path / "config.json" if path.is_dir() else path
    text = read_text(found, what="model configuration", most_bytes=MOST_BYTES)
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{found} is not JSON: {str(error)[:200]}", valid="a model's config.json"
        ) from None
    if not isinstance(config, dict):
        raise InputError(
            f"{found} holds a {type(config).__name__}, not a mapping",
            valid="a model's config.json",
        )
    return model_of_config(config, where=str(found))


def model_of_config(config: Mapping[str, Any], *, where: str) -> KnownModel:
    """The dimensions of the whole model that a configuration describes.

    Args:
        config: the contents of a config.json, or ``hf_config.to_dict()`` of an engine.
        where: what it is called in messages.

    Raises:
        InputError: it is of a model without multi-head latent attention, or a value is missing
            or none that a layer can have; names the key.
    """
    inner = next((part for part in _parts(config) if part.get("kv_lora_rank") is not None), None)
    if inner is None:
        raise InputError(
            f"{where} has no kv_lora_rank: that is a model of type "
            f"{str(config.get('model_type'))[:60]!r} without multi-head latent attention, which "
            "has none of the settings tuned here",
            valid="a model with kv_lora_rank, in config.json itself or in its text_config",
        )
    given = {name: inner[name] for name in _Attention.model_fields if inner.get(name) is not None}
    left_out = {name: value for name, value in _usual(inner).items() if name not in given}
    try:
        found = _Attention.model_validate(left_out | given)
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(map(str, detail["loc"]))
        if detail["type"] == "missing":
            raise InputError(f"{where}: {key!r} is missing") from None
        value = repr(detail["input"])[:60]
        raise InputError(f"{where}: {key} is {value}", valid="a number from 1 to 65536") from None
    dimensions = MlaDimensions(
        num_q_heads=found.num_attention_heads,
        kv_lora_rank=found.kv_lora_rank,
        qk_nope_head_dim=found.qk_nope_head_dim,
        qk_rope_head_dim=found.qk_rope_head_dim,
        v_head_dim=found.v_head_dim,
    )
    said = ", ".join(f"{name} {value}" for name, value in left_out.items())
    notice = f"{where} leaves out {', '.join(left_out)}; taken is {said}" if left_out else ""
    return KnownModel(dimensions, found.index_topk, notice)


def _parts(config: Mapping[str, Any], level: int = 0) -> Iterator[Mapping[str, Any]]:
    """A configuration and those nested in it, from the outside in."""
    yield config
    for name in _INNER:
        inner = config.get(name)
        if isinstance(inner, Mapping) and level < _MOST_LEVELS:
            yield from _parts(inner, level + 1)


def _usual(inner: Mapping[str, Any]) -> dict[str, int]:
    """What is taken for the values that a configuration leaves out."""
    if inner.get("model_type") == "minicpm3":
        # As its configuration class does; hidden_size of MiniCPM3-4B is 2560.
        hidden, heads = inner.get("hidden_size"), inner.get("num_attention_heads")
        if type(hidden) is int and type(heads) is int and heads > 0:
            return {"v_head_dim": hidden // heads}
    is_alike = str(inner.get("model_type")).startswith(("bailing", "deepseek", "kimi"))
    return _LEFT_OUT if is_alike else {}
