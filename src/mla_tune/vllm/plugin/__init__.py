"""The vLLM plugin: tuned values that act in a running engine.

vLLM calls `register` (entry point ``vllm.general_plugins``) in each of its processes, before any
backend class is resolved. With ``MLA_TUNE_TABLES`` unset it does nothing; this file imports
nothing that costs time for that reason.
"""

__all__ = ["register"]

import os


def register() -> None:
    """Register subclasses of the MLA backends that the tables of ``MLA_TUNE_TABLES`` are for.

    May be called any number of times. Never raises: vLLM would not start, and an engine without
    tuned values is better than none. What went wrong is logged.
    """
    setting = os.environ.get("MLA_TUNE_TABLES", "")
    if not setting:
        return
    try:
        from mla_tune.vllm.plugin.registration import register_backends

        register_backends(setting)
    except Exception:
        import logging

        logging.getLogger("vllm.mla_tune").exception(
            "mla-tune: no tuned values are applied, the plugin could not be set up"
        )
