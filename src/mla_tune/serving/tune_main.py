"""The process that tunes before an engine starts: a run of its own, which may be killed.

Called as ``python -m mla_tune.serving.tune_main FD REQUEST``. It ends with its parent, whose end of
the standard input closes whatever becomes of it, and keeps on SIGINT what is decided.
"""

__all__ = ["answer"]

import sys

from mla_tune.errors import MlaTuneError, WorkloadFailure
from mla_tune.printable import printable
from mla_tune.serving.child import answer_parent
from mla_tune.serving.lines import in_a_line
from mla_tune.serving.tune_request import MIN_SPEEDUP_OF_ONE_PROCESS, TuneAnswer, TuneRequest
from mla_tune.shapes import Workload
from mla_tune.table import Entry
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.reporters import SilentReporter
from mla_tune.tuning.run import run
from mla_tune.tuning.run_options import RunOptions

CONFIRM_SECONDS = 10.0


class LineReporter(SilentReporter):
    """A line for each decision."""

    def decided(self, job: TableJob, workload: Workload, entry: Entry) -> None:
        gain = f", {entry.speedup.median:.2f}×" if entry.plan and entry.speedup else ""
        told = f"{job.setup.backend} {workload}: {entry.plan or 'default'}{gain}"
        print(f"mla-tune: {printable(told)}", file=sys.stderr, flush=True)


def answer(request: str) -> str:
    """Tune as the request says."""
    try:
        return _tuned(TuneRequest.from_json(request)).as_json()
    except MlaTuneError as error:
        return TuneAnswer(problem=in_a_line(error)).as_json()
    except OSError as error:
        problem = f"{error.filename or 'a file'}: {error.strerror or error}"
        return TuneAnswer(problem=problem).as_json()


def _tuned(request: TuneRequest) -> TuneAnswer:
    is_gpu = request.device != "cpu"
    options = RunOptions(
        shapes=request.shapes,
        backends=(request.backend,),
        out=request.out,
        study_dir=request.study_dir,
        device=request.device,
        devices=request.devices,
        min_speedup=MIN_SPEEDUP_OF_ONE_PROCESS if is_gpu and request.processes == 1 else None,
        confirm_seconds=CONFIRM_SECONDS,
        processes=request.processes,
        launches=request.launches,
        replace=True,
        wait=True,
    )
    result = run(options, LineReporter())
    problems = [failure.error.what for failure in result.failures]
    # A full disk or a lost device says nothing of a batch: the next start tries it again.
    lasting = [each for each in result.failures if isinstance(each.error, WorkloadFailure)]
    failed = [shape for failure in lasting for shape in failure.shapes]
    return TuneAnswer(tuple(failed), problems[0] if problems else "")


if __name__ == "__main__":
    answer_parent(sys.argv[1:], answer)
