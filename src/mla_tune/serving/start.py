"""The start of the engine: what was prepared, then vLLM in the place of this process."""

__all__ = ["Stopped", "become", "prepared_or_untuned", "stopping"]

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn

from mla_tune.errors import EnvironmentFailure, MlaTuneError
from mla_tune.serving import metrics_folder
from mla_tune.serving.engine_process import NothingToPick, RefusedByVllm
from mla_tune.serving.lines import in_a_line
from mla_tune.serving.prepare import Preparation, prepared
from mla_tune.serving.prepare_options import PrepareOptions
from mla_tune.serving.tabled import VARIABLE
from mla_tune.serving.vllm_command import VllmCommand

NOT_FOUND = 127  # as a shell says it


class Stopped(BaseException):
    """A signal asks this process to end while it prepares."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """End in order on SIGTERM, as ``docker stop`` sends it: a tuning process is to be stopped."""

    def stop(number: int, _frame: object) -> None:
        raise Stopped(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def prepared_or_untuned(
    command: VllmCommand, options: Callable[[], PrepareOptions], say: Callable[[str], None]
) -> Preparation:
    """What was prepared; where anything of ours fails, vLLM's command as it was given.

    An engine that serves untuned is better than none, so that no exception of ours passes on, but
    for the one that says that the user's own options exclude each other.

    Raises:
        NothingToPick: a backend was to be picked, and the command leaves no choice.
    """
    try:
        found = prepared(options())
    except RefusedByVllm:
        return Preparation(command)  # which will say so itself
    except NothingToPick:
        raise
    except MlaTuneError as error:
        problem = in_a_line(error)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        if found.problem:
            say(f"not all could be tuned: {found.problem}")
        return found
    say(f"vLLM starts untuned: {problem}")
    return Preparation(command)


def become(
    preparation: Preparation,
    environ: Mapping[str, str],
    say: Callable[[str], None],
    *,
    metrics: bool = True,
) -> NoReturn:
    """Replace this process with vLLM: its signals and its exit code are vLLM's own.

    Args:
        preparation: what it starts with.
        environ: the variables that it has already.
        say: told what is changed of vLLM's own, a line at a time.
        metrics: whether the plugin's counts are to reach ``/metrics``, where tables act.

    Raises:
        EnvironmentFailure: there is no such program.
    """
    variables = dict(environ)
    if preparation.tables is not None:
        variables[VARIABLE] = preparation.tables
    if metrics and variables.get(VARIABLE) and metrics_folder.VARIABLE not in variables:
        variables |= _with_metrics(say)
    argv = preparation.command.argv
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores these, and a program would go on ignoring them.
    numbers = (signal.SIGPIPE, signal.SIGXFSZ)
    ignored = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        os.execvpe(argv[0], argv, variables)
    except OSError as error:
        for number, handler in ignored.items():
            signal.signal(number, handler)
        failure = EnvironmentFailure(f"{argv[0]} cannot be started: {error.strerror or error}")
        failure.exit_code = NOT_FOUND
        raise failure from None


def _with_metrics(say: Callable[[str], None]) -> dict[str, str]:
    """The variable that has vLLM's server collect the counts of all processes of the engine."""
    try:
        folder = metrics_folder.inherited_folder()
    except OSError as error:
        say(f"no counts of mla-tune in /metrics: {error.filename}: {error.strerror or error}")
        return {}
    say("/metrics has mla-tune's counts, and no process_* and python_*; see --no-metrics")
    return {metrics_folder.VARIABLE: str(folder)}
