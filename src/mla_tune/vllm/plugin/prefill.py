"""The prefill backends of one metadata builder: vLLM's own, and those that its table names.

While a batch is built, its prefill backend is the builder's, in place of vLLM's own; a measuring
session does the same. So whatever vLLM asks the builder's prefill backend meanwhile
(``align_indptr`` of 0.33 goes by its name), and later the one in the batch's metadata, is asked of
the backend that runs.
"""

__all__ = ["PrefillByBatch", "reserve_prefill"]

import logging
from collections.abc import Iterable
from typing import Any

from mla_tune.errors import InputError
from mla_tune.table import Entry
from mla_tune.vllm import compat, workspace
from mla_tune.vllm.compat import prefills
from mla_tune.vllm.plugin.fields import Fields
from mla_tune.vllm.plugin.single import named_prefill_backends
from mla_tune.vllm.plugin.state import once
from mla_tune.vllm.prefill import NEED_WORKSPACE, make_prefill, prefill_name

# What vLLM may ask a prefill backend to write, in vllm/model_executor/layers/quantization.
_QUANT_KEYS = "vllm.model_executor.layers.quantization.utils.quant_utils"


class PrefillByBatch:
    """The prefill backends that a builder can use for one batch at a time.

    Args:
        builder: one of vLLM's, of a release that has prefill backends (0.22 on).
        names: the short names that its table has.
    """

    def __init__(self, builder: Any, names: Iterable[str]) -> None:
        self._own = prefills.backend_of(builder)
        self._others: dict[str, Any] = {}
        config = builder.vllm_config
        if self._own is None:
            once(
                logging.WARNING,
                "mla-tune: this vLLM fixes the prefill backend at start; see 'mla-tune vllm-args'",
            )
            return
        if config.attention_config.mla_prefill_backend is not None:
            return  # the operator has decided
        own = prefill_name(self._own)
        for name in sorted(set(names) - {own}):
            self._add(name, config)
        if self._others:
            told = ", ".join(self._others)
            once(logging.INFO, f"mla-tune: prefill by batch: {told} beside vLLM's own {own}")

    def _add(self, name: str, config: Any) -> None:
        try:
            # vLLM has given all other memory to the KV cache by now: `reserve_prefill` has
            # taken before that what they need.
            with workspace.fixed_size():
                other = _made(name, self._own, config)
            if told := _broken_promise(self._own, other, config):
                raise InputError(told)
        except Exception as error:
            once(logging.WARNING, f"mla-tune: prefill backend {name} is left out: {error}")
        else:
            self._others[name] = other

    def fields(self, name: str | None) -> Fields:
        """What to set on the builder so that it builds for the prefill backend called ``name``.

        Nothing for None and for what does not run here: both mean vLLM's own.
        """
        other = self._others.get(name or "")
        return () if other is None else (("_prefill_backend", other),)


def reserve_prefill(entries: Iterable[Entry], like: Any, vllm_config: Any) -> None:
    """Let the prefill backends that ``entries`` name take their part of vLLM's shared workspace.

    To be called while the model is loaded. TRTLLM_RAGGED takes
    ``VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE`` (394 MiB), which `PrefillByBatch` then finds there.

    Args:
        entries: of the eager table.
        like: an impl, see `make_prefill`.
        vllm_config: the engine's.
    """
    if vllm_config.attention_config.mla_prefill_backend is not None:
        return
    for name in sorted(named_prefill_backends(entries) & set(NEED_WORKSPACE)):
        try:
            _made(name, like, vllm_config)
        except InputError as error:
            once(logging.WARNING, f"mla-tune: prefill backend {name} is left out: {error}")


def _made(name: str, like: Any, vllm_config: Any) -> Any:
    if name in NEED_WORKSPACE and workspace.slots() > 1:
        raise InputError("it takes vLLM's shared workspace, and microbatches keep several")
    with compat.symbol("vllm.config", "set_current_vllm_config")(vllm_config):
        return make_prefill(name, like, vllm_config)


def _broken_promise(own: Any, other: Any, vllm_config: Any) -> str | None:
    """What vLLM's own backend has been asked for engine-wide and ``other`` does not do.

    The layer asks its own prefill backend whether it writes quantised output, and then hands an
    output scale to whichever runs.
    """
    if not getattr(vllm_config.compilation_config.pass_config, "fuse_attn_quant", False):
        return None
    for name, key in vars(compat.module(_QUANT_KEYS)).items():
        if type(key).__name__ != "QuantKey":
            continue
        if own.supports_quant_output(key) and not other.supports_quant_output(key):
            return f"with fuse_attn_quant vLLM's own writes {name}, which it does not"
    return None
