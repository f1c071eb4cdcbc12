"""The entry point of installations made before the plugin moved to `mla_tune.vllm.plugin`."""

__all__ = ["register"]

from mla_tune.vllm.plugin import register
