"""What a script needs of a machine: said in a line, with exit code 2, before it begins."""

__all__ = ["need"]

import importlib.util
import sys
from collections.abc import Sequence


def need(*packages: str, gpu: bool = False, arguments: Sequence[str] | None = None) -> None:
    """End the script where something is not here. ``--help`` and ``--device cpu`` need no GPU.

    Args:
        packages: to be importable, vllm for instance.
        gpu: whether it needs a CUDA GPU.
        arguments: of the command line; None: those of this process.
    """
    asked = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(asked):
        return
    for package in packages:
        if importlib.util.find_spec(package) is None:
            _end(f"{package}, which is not installed here")
    if gpu and "--device=cpu" not in asked and "--device cpu" not in " ".join(asked):
        import torch

        if not torch.cuda.device_count():
            _end("a CUDA GPU, and PyTorch sees none here")


def _end(what: str) -> None:
    print(f"{sys.argv[0]} needs {what}", file=sys.stderr)
    sys.exit(2)
