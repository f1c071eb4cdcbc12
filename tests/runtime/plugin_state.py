"""What the plugin keeps for the life of a process, forgotten between two tests."""

import sys


def forget() -> None:
    """Forget tables, deployments, messages and overrides."""
    from mla_tune.runtime import log, resolve

    log._said.clear()
    if deployment := sys.modules.get("mla_tune.runtime.deployment"):
        deployment.LOADED.clear()
        deployment._deployments.clear()
    if registration := sys.modules.get("mla_tune.runtime.registration"):
        registration._registered_for = None
        if registry := sys.modules.get("vllm.v1.attention.backends.registry"):
            for name in resolve.BACKENDS:
                registry.AttentionBackendEnum[name].clear_override()
