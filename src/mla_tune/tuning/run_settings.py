"""What the options of a run mean once its device is known."""

__all__ = ["check_folders", "own_part", "settings_for"]

from collections.abc import Callable, Sequence

from mla_tune.environment import Environment
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.run_folders import check_output, check_study_folder, shipped_folder_notice
from mla_tune.tuning.run_options import RunOptions
from mla_tune.tuning.settings import Settings

# A process's memory and cores on a CPU move a median by up to 4 % from one run to the next, so a
# gain below that would not survive a second look.
MIN_SPEEDUP = 1.01
MIN_SPEEDUP_ON_CPU = 1.05


def check_folders(options: RunOptions, notice: Callable[[str], None]) -> None:
    """Make the folders that a run writes to.

    Raises:
        InputError: one cannot be made or written.
    """
    check_output(options.out)
    check_study_folder(options.study_folder)
    if told := shipped_folder_notice(options.out):
        notice(told)


def own_part(
    jobs: Sequence[TableJob], options: RunOptions, notice: Callable[[str], None]
) -> Sequence[TableJob]:
    """What of ``jobs`` is this run's, by ``--units``; told where that is nothing."""
    part = options.part
    if part is None:
        return jobs
    own = part.of_jobs(jobs)
    if not own:
        notice(f"--units {options.units}: there are fewer batch shapes than parts, and none for it")
    return own


def settings_for(options: RunOptions, environment: Environment) -> Settings:
    """How much a run with ``options`` measures on a device."""
    gate = MIN_SPEEDUP if environment.is_cuda else MIN_SPEEDUP_ON_CPU
    return Settings(
        min_speedup=options.min_speedup or gate,
        confirmation_s=options.confirm_seconds,
        # Such a run is for the recording, which is of one process.
        processes=1 if options.record_rounds else options.processes,
        launches=options.launches,
    )
