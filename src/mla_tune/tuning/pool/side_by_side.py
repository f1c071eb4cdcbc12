"""Work in the threads of several devices at once."""

__all__ = ["side_by_side"]

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from mla_tune.measuring.worker_client import Stopped


def side_by_side(work: Iterable[tuple[ThreadPoolExecutor, Callable[[], None]]]) -> None:
    """Do each piece of work in its thread, until all are done or one cannot go on.

    Raises:
        BaseException: what ended the first; the others may still be at work.
    """
    done, _ = wait([thread.submit(task) for thread, task in work], return_when=FIRST_EXCEPTION)
    if failure := _first_failure(done):
        raise failure


def _first_failure(futures: set[Future[None]]) -> BaseException | None:
    """The failure that ended the work; the others were stopped because of it."""
    failures = [failure for future in futures if (failure := future.exception())]
    failures.sort(key=lambda failure: isinstance(failure, Stopped))
    return failures[0] if failures else None
