"""Tuning from Python: what the command does, without a terminal."""

__all__ = [
    "Failure",
    "Reporter",
    "SilentReporter",
    "TuneOptions",
    "TuneResult",
    "TunedTable",
    "tune",
]

from collections.abc import Mapping
from typing import Any, Unpack

from mla_tune.tuning.reporters import Reporter, SilentReporter
from mla_tune.tuning.result import Failure, TunedTable, TuneResult
from mla_tune.tuning.run import run
from mla_tune.tuning.tune_options import AnyPath, TuneOptions, run_options


def tune(
    shapes: AnyPath | Mapping[str, Any] | None = None,
    *,
    reporter: Reporter | None = None,
    **options: Unpack[TuneOptions],
) -> TuneResult:
    """Measure the fastest settings for vLLM's MLA attention backends, and write their tables.

    Does what ``mla-tune --shapes …`` does, with the same files: called again, it goes on where an
    earlier call or command was. Plans run in another process, which does not import the caller's
    script: it needs no ``if __name__ == "__main__"``, and this process holds no memory of the GPU.

    Args:
        shapes: a shapes file or one of vLLM's attention-benchmark configs; or a mapping with the
            keys of a shapes file. None with ``recording`` alone.
        reporter: told how the run goes, such as one derived from `SilentReporter`.
        options: as of `TuneOptions`.

    Raises:
        InputError: something given cannot be used, and nothing is measured.
        EnvironmentFailure: the machine, the disk or the device failed. With any error or
            KeyboardInterrupt, what is decided is kept, and the same call goes on from there.

    Example:
        >>> import mla_tune
        >>> tiny = {"name": "tiny", "num_q_heads": 2, "kv_lora_rank": 32, "v_head_dim": 16}
        >>> tiny |= {"qk_nope_head_dim": 16, "qk_rope_head_dim": 8}
        >>> shapes = {"model": tiny, "batch_specs": ["2q1s64"]}
        >>> places = {"out": "tables", "study_dir": "studies"}
        >>> result = mla_tune.tune(
        ...     shapes, backends="TORCH_MLA", device="cpu", confirm_seconds=0.3, **places
        ... )
        >>> result.failures
        ()
        >>> [tuned] = result.tables
        >>> tuned.table.lookup(batch=2, kv_len=64).is_exact
        True
    """
    return run(run_options(shapes, options), reporter or SilentReporter())
