"""What is asked of a preparation, and how much of its time is left."""

__all__ = ["PrepareOptions"]

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mla_tune.serving.cache import Cache
from mla_tune.serving.engine_process import NothingToPick
from mla_tune.serving.vllm_command import VllmCommand


@dataclass(frozen=True)
class PrepareOptions:
    """How an engine is prepared.

    Attributes:
        command: vLLM's.
        cache: where descriptions and tables are kept.
        deadline_s: of ``clock``: when tuning has to have ended.
        backend: tuned in place of the one that vLLM chooses.
        pick_backend: whether to compare the backends that vLLM takes, and choose.
        device: to tune on, as of ``--device``.
        processes: in how many processes a plan is raced before it is published.
        say: told how it goes, a line at a time.
        environ: the environment that vLLM is going to have.
    """

    command: VllmCommand
    cache: Cache
    deadline_s: float
    backend: str | None = None
    pick_backend: bool = False
    device: str = "auto"
    processes: int = 1
    say: Callable[[str], None] = print
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if self.pick_backend and self.backend is not None:
            raise NothingToPick("--backend and --pick-backend cannot be given together")

    @property
    def left_s(self) -> float:
        return self.deadline_s - self.clock()
