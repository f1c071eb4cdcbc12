"""What the plugin keeps for the life of a process, forgotten between two tests."""

import sys


def forget() -> None:
    """Forget tables, deployments, messages and overrides."""
    from mla_tune.vllm import log
    from mla_tune.vllm.plugin import resolve

    log._said.clear()
    if deployment := sys.modules.get("mla_tune.vllm.plugin.deployment"):
        deployment.LOADED.clear()
        deployment._deployments.clear()
    if registration := sys.modules.get("mla_tune.vllm.plugin.registration"):
        registration._registered_for = None
        if registry := sys.modules.get("vllm.v1.attention.backends.registry"):
            for name in resolve.BACKENDS:
                registry.AttentionBackendEnum[name].clear_override()
