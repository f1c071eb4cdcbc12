"""The backends by name, each loaded only when it is asked for."""

__all__ = ["ALIASES", "NAMES", "canonical_name", "get_backend"]

import importlib

from mla_tune.errors import InputError, nearest_hint
from mla_tune.session import Backend

_VLLM_LAYER = "mla_tune.vllm.backends"
_MODULES = {
    "TORCH_MLA": "mla_tune.torch_mla.backend",
    "TRITON_MLA": _VLLM_LAYER,
    "FLASH_ATTN_MLA": _VLLM_LAYER,
    "FLASHMLA": _VLLM_LAYER,
    "CUTLASS_MLA": _VLLM_LAYER,
    "FLASHINFER_MLA": _VLLM_LAYER,
    "TOKENSPEED_MLA": _VLLM_LAYER,
    "FLASHMLA_SPARSE": _VLLM_LAYER,
    "FLASH_ATTN_MLA_SPARSE": _VLLM_LAYER,
    "FLASHINFER_MLA_SPARSE": _VLLM_LAYER,
}
NAMES = tuple(_MODULES)

# The lower-case names of vLLM's attention benchmark.
ALIASES = {
    "torch_mla": "TORCH_MLA",
    "triton_mla": "TRITON_MLA",
    "flashattn_mla": "FLASH_ATTN_MLA",
    "flash_attn_mla": "FLASH_ATTN_MLA",
    "flashmla": "FLASHMLA",
    "cutlass_mla": "CUTLASS_MLA",
    "flashinfer_mla": "FLASHINFER_MLA",
    "tokenspeed_mla": "TOKENSPEED_MLA",
    "flashmla_sparse": "FLASHMLA_SPARSE",
    "flashattn_mla_sparse": "FLASH_ATTN_MLA_SPARSE",
    "flash_attn_mla_sparse": "FLASH_ATTN_MLA_SPARSE",
    "flashinfer_mla_sparse": "FLASHINFER_MLA_SPARSE",
}


def canonical_name(name: str) -> str:
    """Resolve vLLM's name or its benchmark's alias.

    Raises:
        InputError: unknown; lists the known ones.
    """
    if name in _MODULES:
        return name
    if name in ALIASES:
        return ALIASES[name]
    raise InputError(
        f"unknown backend {name!r}",
        valid=", ".join(NAMES),
        remedy=nearest_hint(name.upper(), NAMES) or "'mla-tune backends' says which run here",
    )


def get_backend(name: str) -> Backend:
    """Load the backend called ``name``. Raises as `canonical_name` does."""
    name = canonical_name(name)
    backend: Backend = importlib.import_module(_MODULES[name]).BACKENDS[name]
    return backend
