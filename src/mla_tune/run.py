"""One run of the command: the shapes as the flags cut them, a worker, a campaign."""

__all__ = ["RunOptions", "found_environment", "run"]

import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import platformdirs

from mla_tune.backends import canonical_name
from mla_tune.campaign import Campaign, Reporter
from mla_tune.environment import Environment
from mla_tune.errors import InputError, MlaTuneError
from mla_tune.shapes.file import ShapesFile, load_shapes
from mla_tune.tuner import Settings
from mla_tune.worker import Limits, WorkerBench


@dataclass(frozen=True)
class RunOptions:
    """The command's options, as given; `mla-tune --help` explains them."""

    backends: tuple[str, ...]
    shapes_path: Path
    out: Path
    study_dir: Path | None
    device: str
    max_tokens: int | None
    tensor_parallel_size: tuple[int, ...]
    min_speedup: float
    confirm_seconds: float
    sample_timeout: float
    plan_timeout: float
    replace: bool

    @cached_property
    def study_folder(self) -> Path:
        """``--study-dir``, or a place of the user's that survives reboots."""
        return self.study_dir or platformdirs.user_state_path("mla-tune") / "studies"


def run(options: RunOptions, reporter: Reporter) -> list[tuple[str, MlaTuneError]]:
    """Tune, and return what could not be tuned.

    Raises:
        InputError, EnvironmentFailure: as `Campaign.run`.
    """
    for name in options.backends:
        canonical_name(name)
    shapes = cut(load_shapes(options.shapes_path), options, reporter)
    for notice in shapes.notices:
        reporter.skipped(notice)
    campaign = Campaign(
        backends=options.backends,
        shapes=shapes,
        out=options.out,
        study_dir=options.study_folder,
        settings=Settings(min_speedup=options.min_speedup, confirmation_s=options.confirm_seconds),
        reporter=reporter,
        replace=options.replace,
    )
    limits = Limits(sample_s=options.sample_timeout, warm_up_s=options.plan_timeout)
    bench = WorkerBench(options.device, _worker_log(options.study_folder), limits)
    try:
        campaign.run(bench)
    finally:
        bench.close()
    return campaign.failures


def _worker_log(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "worker.log"
        log.write_text("")
    except OSError as error:
        raise InputError(
            f"study folder {folder} cannot be written: {error.strerror or error}",
            remedy="choose another with --study-dir",
        ) from None
    return log


def cut(shapes: ShapesFile, options: RunOptions, reporter: Reporter) -> ShapesFile:
    """Apply --max-tokens and --tensor-parallel-size.

    Raises:
        InputError: nothing is left, or the heads do not divide.
    """
    if options.tensor_parallel_size:
        whole = shapes.whole_model
        models = tuple(whole.sharded(size) for size in options.tensor_parallel_size)
        shapes = replace(shapes, models=tuple(dict.fromkeys(models)))
    if options.max_tokens is None:
        return shapes
    kept = [case for case in shapes.cases if case.shape.num_kv_tokens <= options.max_tokens]
    dropped = len(shapes.cases) - len(kept)
    if not kept:
        smallest = min(case.shape.num_kv_tokens for case in shapes.cases)
        raise InputError(
            f"--max-tokens {options.max_tokens} leaves no shape of {shapes.path}",
            valid=f"{smallest} or more for this file",
        )
    if dropped:
        reporter.skipped(f"--max-tokens {options.max_tokens}: {dropped} larger shapes left out")
    return replace(shapes, cases=tuple(kept))


def found_environment(device: str) -> Environment:
    """Look at a device from a process of its own, so that this one holds no CUDA context."""
    with tempfile.TemporaryDirectory() as scratch:
        bench = WorkerBench(device, Path(scratch) / "worker.log")
        try:
            return bench.environment
        finally:
            bench.close()
