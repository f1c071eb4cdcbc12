"""Tuning from Python: what the command does, without a terminal."""

__all__ = ["Failure", "Reporter", "SilentReporter", "TuneResult", "TunedTable", "tune"]

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mla_tune.errors import InputError, MlaTuneError
from mla_tune.shapes import Workload
from mla_tune.table import Entry
from mla_tune.tuning.assignment import Assignment
from mla_tune.tuning.campaign import Reporter
from mla_tune.tuning.observers import SilentObserver
from mla_tune.tuning.result import Failure, TunedTable, TuneResult
from mla_tune.tuning.run import run
from mla_tune.tuning.run_options import RunOptions

AnyPath = str | os.PathLike[str]
One = TypeVar("One", str, int)


class SilentReporter(SilentObserver):
    """A reporter that says nothing: derive from it, and override what you want to be told.

    A method that raises ends the run; whatever was measured until then is kept.
    """

    def skipped(self, what: str) -> None:
        """Something is left out, or should be known, in one line."""

    def assigned(self, assignments: Sequence[Assignment]) -> None:
        """What there is to do: one assignment a table."""

    def started(self, assignment: Assignment, workload: Workload) -> None:
        """A batch shape is begun."""

    def decided(self, assignment: Assignment, workload: Workload, entry: Entry) -> None:
        """A batch shape is decided: ``entry`` is what its table says of it."""

    def failed(self, assignment: Assignment, workload: Workload, error: MlaTuneError) -> None:
        """A batch shape could not be tuned."""

    def given_up(
        self, assignment: Assignment, workloads: Sequence[Workload], error: MlaTuneError
    ) -> None:
        """Batch shapes are left untuned, all for one cause."""

    def unpublished(
        self, assignment: Assignment, entries: Sequence[Entry], error: MlaTuneError
    ) -> None:
        """Decided entries could not be written to their table."""


def tune(
    shapes: AnyPath | Mapping[str, Any] | None = RunOptions.shapes,
    *,
    backends: str | Sequence[str] = RunOptions.backends,
    out: AnyPath = RunOptions.out,
    study_dir: AnyPath | None = RunOptions.study_dir,
    device: str = RunOptions.device,
    max_tokens: int | None = RunOptions.max_tokens,
    tensor_parallel_size: int | Sequence[int] = RunOptions.tensor_parallel_size,
    min_speedup: float | None = RunOptions.min_speedup,
    confirm_seconds: float = RunOptions.confirm_seconds,
    sample_timeout: float = RunOptions.sample_timeout,
    plan_timeout: float = RunOptions.plan_timeout,
    record: AnyPath | None = RunOptions.record,
    record_rounds: int = RunOptions.record_rounds,
    recording: AnyPath | None = RunOptions.recording,
    replace: bool = RunOptions.replace,
    wait: bool = RunOptions.wait,
    reporter: Reporter | None = None,
) -> TuneResult:
    """Measure the fastest settings for vLLM's MLA attention backends, and write their tables.

    Does what the command ``mla-tune --shapes …`` does, with the same files: called again, it goes
    on where an earlier call or command was, and measures nothing that is decided. Plans run in
    another process, which does not import the caller's script: it needs no ``if __name__ ==
    "__main__"``, and this process holds no memory of the GPU.

    Args:
        shapes: a shapes file, or one of vLLM's attention-benchmark configs; or a mapping with the
            keys of a shapes file. None with ``recording`` alone.
        backends: backends to tune, in vLLM's names; without any, those that ``shapes`` lists.
        out: folder of the tables.
        study_dir: folder of the journals a run resumes from; None is one in the user's state
            folder.
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto`` for a GPU where there is one.
        max_tokens: leave out batch shapes of more KV tokens than this, over all their requests.
        tensor_parallel_size: how many GPUs share the heads, once or several times; without any, as
            ``shapes`` says.
        min_speedup: publish a plan only when the lower end of its 95 % interval is above this
            factor of the default's speed; None is 1.01, and 1.05 on a CPU.
        confirm_seconds: most seconds that comparing a shape's best plans to the default takes.
        sample_timeout: seconds after which a sample counts as hung.
        plan_timeout: seconds that compiling and checking a plan may take.
        record: a file that also keeps every sample taken (gzip where its name ends in ``.gz``).
        record_rounds: record so many samples of every plan, side by side.
        recording: with ``backends="RECORDED"``: play back the samples of this file.
        replace: start a table anew that is true for something else; the old one is kept beside it.
        wait: wait for a device that another run is measuring on, where this raises otherwise.
        reporter: told how the run goes, such as one derived from `SilentReporter`.

    Returns:
        The tables written, and what could not be tuned. A plan or a batch shape that fails does
        not raise.

    Raises:
        InputError: something given cannot be used; nothing is measured then. The message names
            the file and line, or the key of the mapping, and what is valid. Options have the
            command's spelling in it: ``--study-dir`` is ``study_dir``.
        EnvironmentFailure: the machine, the disk or the device failed.
        KeyboardInterrupt: passes through. As with any error, every finished trial and every entry
            decided is kept; the same call goes on from there.

    Example:
        >>> import mla_tune
        >>> tiny = {"name": "tiny", "num_q_heads": 2, "kv_lora_rank": 32, "v_head_dim": 16}
        >>> tiny |= {"qk_nope_head_dim": 16, "qk_rope_head_dim": 8}
        >>> result = mla_tune.tune(
        ...     {"model": tiny, "batch_specs": ["2q1s64"]},
        ...     backends="TORCH_MLA",
        ...     device="cpu",
        ...     out="tables",
        ...     study_dir="studies",
        ...     confirm_seconds=0.3,
        ... )
        >>> result.failures
        ()
        >>> [tuned] = result.tables
        >>> [entry.shape for entry in tuned.entries]
        ['2q1s64']
        >>> tuned.table.lookup(batch=2, kv_len=64).is_exact
        True
    """
    options = RunOptions(
        shapes=shapes if isinstance(shapes, Mapping) else _path("shapes", shapes),
        backends=_tuple("backends", str, backends),
        out=_path("out", out) or RunOptions.out,
        study_dir=_path("study_dir", study_dir),
        device=str(device),
        max_tokens=max_tokens,
        tensor_parallel_size=_tuple("tensor_parallel_size", int, tensor_parallel_size),
        min_speedup=min_speedup,
        confirm_seconds=confirm_seconds,
        sample_timeout=sample_timeout,
        plan_timeout=plan_timeout,
        record=_path("record", record),
        record_rounds=record_rounds,
        recording=_path("recording", recording),
        replace=replace,
        wait=wait,
    )
    return run(options, reporter or SilentReporter())


def _path(option: str, value: AnyPath | None) -> Path | None:
    if value is None:
        return None
    try:
        return Path(value)
    except TypeError:
        raise InputError(f"{option} is {value!r:.80}", valid="a path") from None


def _tuple(option: str, kind: type[One], values: One | Sequence[One]) -> tuple[One, ...]:
    """One value or several; a word alone is one value, not a sequence of letters."""
    given = (values,) if isinstance(values, kind) else values
    if isinstance(given, Sequence) and all(isinstance(value, kind) for value in given):
        return tuple(given)
    names = {str: "a name or a list of names", int: "a whole number or a list of them"}
    raise InputError(f"{option} is {values!r:.80}", valid=names[kind])
