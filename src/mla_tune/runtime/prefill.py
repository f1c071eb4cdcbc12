"""The prefill backends of one metadata builder: vLLM's own, and those that its table names.

While a batch is built, the one that is chosen for it stands in the builder's place for vLLM's
own, as in a measuring session. So whatever vLLM asks of it then (``align_indptr`` of 0.33 goes by
its name) or later, through the batch's metadata, is answered by the one that runs.
"""

__all__ = ["PrefillByBatch", "ReservesPrefill"]

import logging
from collections.abc import Iterable
from typing import Any, ClassVar

from mla_tune.backends import vllm_compat as compat
from mla_tune.backends import vllm_workspace as workspace
from mla_tune.backends.vllm_prefill import NEED_WORKSPACE, make_prefill, prefill_name
from mla_tune.errors import InputError
from mla_tune.runtime import deployment
from mla_tune.runtime.engine import engine_facts
from mla_tune.runtime.log import once
from mla_tune.runtime.single import named_prefill_backends
from mla_tune.runtime.tables import LoadedTable

# What vLLM may ask a prefill backend to write, in vllm/model_executor/layers/quantization.
_QUANT_KEYS = "vllm.model_executor.layers.quantization.utils.quant_utils"


class PrefillByBatch:
    """Has a builder use another prefill backend for one batch at a time.

    Args:
        builder: one of vLLM's, of a release that has prefill backends (0.22 on).
        names: the short names that its table has.
    """

    def __init__(self, builder: Any, names: Iterable[str]) -> None:
        self._builder = builder
        self._own = compat.prefill_backend_of(builder)
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
            # vLLM has given all other memory to the KV cache by now: `ReservesPrefill` has
            # taken before that what they need.
            with workspace.fixed_size():
                other = _made(name, self._own, config)
            if told := _broken_promise(self._own, other, config):
                raise InputError(told)
        except Exception as error:
            once(logging.WARNING, f"mla-tune: prefill backend {name} is left out: {error}")
        else:
            self._others[name] = other

    def choose(self, name: str | None) -> None:
        """Say what the next batch is built for; None, or what does not run here, is vLLM's own."""
        if self._others:
            self._builder._prefill_backend = self._others.get(name or "", self._own)


class ReservesPrefill:
    """Stands before one of vLLM's impls in a class's bases: takes workspace for prefill.

    An impl is made while the model is loaded, so memory profiling sees what is taken here.
    TRTLLM_RAGGED takes ``VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE`` (394 MiB) of vLLM's shared
    workspace, which `PrefillByBatch` then finds there.
    """

    mla_tune_backend: ClassVar[str]

    num_heads: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            self._reserve_prefill()
        except Exception as error:
            once(logging.WARNING, f"mla-tune: no workspace for prefill by batch: {error}")

    def _reserve_prefill(self) -> None:
        if not any(map(_need_workspace, deployment.LOADED)):
            return
        config = compat.symbol("vllm.config", "get_current_vllm_config")()
        if config.attention_config.mla_prefill_backend is not None:
            return
        facts = engine_facts(self.mla_tune_backend, config, self.num_heads, self)
        tables, _ = deployment.tables_for(facts, config)
        for name in sorted(_need_workspace(tables["eager"]) if "eager" in tables else ()):
            try:
                _made(name, self, config)
            except InputError as error:
                once(logging.WARNING, f"mla-tune: prefill backend {name} is left out: {error}")


def _need_workspace(loaded: LoadedTable) -> set[str]:
    return named_prefill_backends(loaded.table.entries) & set(NEED_WORKSPACE)


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
