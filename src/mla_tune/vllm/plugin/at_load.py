"""What has to be reserved while the model is loaded, so that memory profiling sees it."""

__all__ = ["ReservesAtLoad"]

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

from mla_tune.table.loading import LoadedTable
from mla_tune.vllm import compat
from mla_tune.vllm.plugin import deployment
from mla_tune.vllm.plugin.engine import engine_facts
from mla_tune.vllm.plugin.layers import ServedLayers
from mla_tune.vllm.plugin.prefill import reserve_prefill
from mla_tune.vllm.plugin.state import once


class ReservesAtLoad:
    """Mixin for an impl of vLLM that reserves what the tables need; it comes before vLLM's class.

    vLLM makes an impl for each layer while it loads the model. It makes its metadata builders only
    when all memory that was left has gone to the KV cache, which is too late. The layers share what
    is reserved: the first one reserves it, the others find it there.
    """

    mla_tune_backend: ClassVar[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            config = compat.symbol("vllm.config", "get_current_vllm_config")()
            # vLLM chooses the block size once all layers are there; reserving depends on none.
            layers = ServedLayers.of_impl(self, block_size=None)
            facts = engine_facts(self.mla_tune_backend, config, layers)
            tables, _ = deployment.tables_for(facts, config)
            if tables:
                self._reserve_at_load(config, tables)
        except Exception as error:
            once(
                logging.WARNING,
                f"mla-tune: nothing is reserved for {self.mla_tune_backend} while the model is "
                f"loaded: {type(error).__name__}: {error}",
            )

    def _reserve_at_load(self, vllm_config: Any, tables: Mapping[str, LoadedTable]) -> None:
        """Reserve what ``tables``, by mode, ask for; each is true for this engine."""
        if "eager" in tables:
            reserve_prefill(tables["eager"].table.entries, self, vllm_config)
