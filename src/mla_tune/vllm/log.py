"""Where the messages inside of vLLM go."""

__all__ = ["logger"]

import logging

# Below "vllm", or vLLM's handlers and its VLLM_LOGGING_LEVEL would not apply.
logger = logging.getLogger("vllm.mla_tune")
