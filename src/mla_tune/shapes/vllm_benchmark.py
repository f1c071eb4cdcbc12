"""What a config of vLLM's attention benchmark says to its own runner, and how one is recognised."""

__all__ = ["refuse_ordinary_attention", "without_vllm_only_keys"]

from typing import Any

from mla_tune.errors import InputError, nearest_hint
from mla_tune.files.document import Document
from mla_tune.shapes.model import MlaDimensions
from mla_tune.shapes.sections import (
    VLLM_MODEL_KEYS,
    VLLM_ONLY_KEYS,
    VLLM_RUNNER_KEYS,
    ModelSection,
    ShapesSection,
)


def without_vllm_only_keys(document: Document) -> tuple[dict[str, Any], list[str]]:
    """Drop what vLLM's configs hold for their own runner, naming each part dropped.

    Each release of vLLM adds keys. In a file recognised as one of vLLM's every key that is not
    known here is therefore dropped too; in our own an unknown key is a mistake and stays, to be
    refused.
    """
    is_vllms = _is_vllms(document.data)
    notices: list[str] = []
    data = _kept(document, (), VLLM_ONLY_KEYS, ShapesSection if is_vllms else None, notices)
    if isinstance(data.get("model"), dict):
        known = ModelSection if is_vllms else None
        data["model"] = _kept(document, ("model",), VLLM_MODEL_KEYS, known, notices)
    return data, sorted(notices)


def _is_vllms(data: dict[Any, Any]) -> bool:
    """Whether the file tells vLLM's runner something: layers, repeats, or a device to run on."""
    model = data.get("model")
    has_layers = isinstance(model, dict) and "num_layers" in model
    return has_layers or not VLLM_RUNNER_KEYS.isdisjoint(data)


def _kept(
    document: Document,
    location: tuple[str, ...],
    reasons: dict[str, str],
    section: type[ShapesSection] | type[ModelSection] | None,
    notices: list[str],
) -> dict[str, Any]:
    """The keys at ``location`` that count here: of ``section`` alone, if one is given."""
    mapping = document.data[location[0]] if location else document.data
    kept = {}
    for key, value in mapping.items():
        reason = reasons.get(key) if isinstance(key, str) else None
        if not location and isinstance(key, str) and key.isupper() and isinstance(value, dict):
            reason = "all knobs are searched"
        if reason is None and section is not None and key not in section.model_fields:
            hint = "" if location else nearest_hint(str(key), section.model_fields)
            reason = f"not a key known here{hint and '; '}{hint}"
        if reason is None:
            kept[key] = value
        else:
            where, name = document.where((*location, key)), ".".join((*location, str(key)))
            notices.append(f"{where}: {name}: skipped ({reason})")
    return kept


def refuse_ordinary_attention(
    document: Document, model: ModelSection, dims: MlaDimensions, *, is_known: bool
) -> str | None:
    """Look at ``num_kv_heads`` and ``head_dim``, which vLLM's configs give for any attention.

    Args:
        document: where they stand.
        model: what it says.
        dims: what it was read as.
        is_known: whether the dimensions are those of a known MLA model, or given.

    Returns:
        A notice where they say something that does not count for MLA, or None.

    Raises:
        InputError: they describe attention that is not multi-head latent attention.
    """
    heads = model.num_kv_heads or 1
    if heads > 1 and (not is_known or model.head_dim not in (None, dims.latent_dim)):
        where = document.where(("model", "num_kv_heads"))
        of_dim = f" of {model.head_dim}" if model.head_dim else ""
        raise InputError(
            f"{where}: model has {heads} KV heads{of_dim}: that is ordinary attention, which has "
            "none of the settings tuned here",
            valid="a model with multi-head latent attention: one latent KV head, a kv_lora_rank",
        )
    if heads > 1:
        where = document.where(("model", "num_kv_heads"))
        return f"{where}: model.num_kv_heads: skipped (MLA has one latent KV head, not {heads})"
    if model.head_dim not in (None, dims.latent_dim):
        raise InputError(
            f"{document.where(('model', 'head_dim'))}: model.head_dim is {model.head_dim}, but "
            f"kv_lora_rank + qk_rope_head_dim is {dims.latent_dim}",
            remedy="leave head_dim out, or correct one of the three",
        )
    return None
