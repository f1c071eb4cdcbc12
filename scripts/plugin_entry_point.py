"""The plugin's entry point, for a checkout that lies on the path without being installed."""

import importlib.metadata
import os
import sys
from pathlib import Path


def declare_entry_point(folder: Path) -> None:
    """Let vLLM find the plugin, here and in child processes, by a dist-info folder in ``folder``.

    Does nothing where an installation has declared it.
    """
    points = importlib.metadata.entry_points(group="vllm.general_plugins")
    if any(point.value == "mla_tune.vllm.plugin:register" for point in points):
        return
    declared = folder / "mla_tune_checkout-0.dist-info"
    declared.mkdir(exist_ok=True)
    (declared / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: mla-tune-checkout\nVersion: 0\n"
    )
    (declared / "entry_points.txt").write_text(
        "[vllm.general_plugins]\nmla_tune = mla_tune.vllm.plugin:register\n"
    )
    sys.path.append(str(folder))
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*known, str(folder)]))
