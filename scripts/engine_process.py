"""The process of one engine of `bench_engine.py`: what `served_engine.ServedEngine` starts."""

import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from measured_engine import MeasuredEngine, Settings
from plugin_entry_point import declare_entry_point


def serve(settings: Settings, log: Path, pipe: Connection) -> None:
    """The child: import, build the engine when told to, answer until told to stop."""
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        _prepare_environment(settings)
        import vllm  # noqa: F401

        engine: Any = None
        while True:
            what, arguments = pipe.recv()
            if what == "stop":
                break
            if what == "start":
                engine = MeasuredEngine(settings)
                pipe.send(engine.facts)
            else:
                pipe.send(getattr(engine, what)(**arguments))
    except Exception as error:
        import traceback

        traceback.print_exc()
        pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
    sys.stdout.flush()
    # vLLM's own threads may keep a finished process alive.
    os._exit(0)


def _prepare_environment(settings: Settings) -> None:
    os.environ |= {
        # All requests of a batch must arrive before its first step.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # apply_model() sends a function of this script to the engine core.
        "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    os.environ.pop("MLA_TUNE_TABLES", None)
    os.environ.pop("MLA_TUNE_RECORD", None)
    if settings.tables is not None:
        os.environ["MLA_TUNE_TABLES"] = settings.tables
        if settings.backend.endswith("_SPARSE"):
            os.environ["MLA_TUNE_UNPROVEN"] = "1"
        declare_entry_point(settings.model)
