"""Studies in a database that several runs share: PostgreSQL; or SQLite, for one run at a time."""

__all__ = ["StudyDatabase", "check_storage_url"]

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage, get_storage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.files.own_file import open_own
from mla_tune.tuning.study.advisory_locks import AdvisoryLocks
from mla_tune.tuning.study.journal import Journal
from mla_tune.tuning.study.subject import Subject

VALID = "postgresql://USER@HOST/DATABASE, or sqlite:///FILE for one run at a time"


def check_storage_url(url: str) -> URL:
    """Read the URL of a database, without connecting to it.

    Raises:
        InputError: it is not one that studies can be kept in.
    """
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        raise InputError("--storage is not the URL of a database", valid=VALID) from None
    kind = found.get_backend_name()
    if kind == "postgres" or found.drivername == "postgresql":
        found = found.set(drivername="postgresql+psycopg")
    elif kind == "sqlite" and found.database in (None, "", ":memory:"):
        raise InputError("--storage names no file of SQLite's", valid=VALID)
    elif kind not in ("postgresql", "sqlite"):
        raise InputError(f"--storage is a database of {kind}", valid=VALID)
    return found


class StudyDatabase:
    """A database of studies, connected to.

    Args:
        url: its URL.

    Attributes:
        name: the URL without its password, for messages.
        claims: which units are this run's; None where no other run shares the database.

    Raises:
        InputError: not such a URL, nothing answers there, or another run has the file.
    """

    def __init__(self, url: str) -> None:
        found = check_storage_url(url)
        self.name = found.render_as_string(hide_password=True)
        self.claims: AdvisoryLocks | None = None
        with contextlib.ExitStack() as stack:
            if found.get_backend_name() == "sqlite":
                stack.callback(os.close, _locked(Path(str(found.database)), self.name))
                storage = self._opened(found)
            else:
                with self._unreachable_named():
                    self.claims = AdvisoryLocks(found)
                stack.callback(self.claims.close)
                # Optuna makes its tables in steps, which two runs must not do at once.
                with self.claims.alone("tables"):
                    storage = self._opened(found)
            stack.callback(storage.engine.dispose)
            self._held = stack.pop_all()
        self._storage = get_storage(storage)

    def _opened(self, url: URL) -> RDBStorage:
        with self._unreachable_named():
            return RDBStorage(
                url.render_as_string(hide_password=False),
                engine_kwargs={"pool_pre_ping": True, "max_overflow": -1},
            )

    @contextlib.contextmanager
    def _unreachable_named(self) -> Iterator[None]:
        try:
            yield
        except ImportError:
            raise InputError(
                "--storage needs psycopg, which is not installed here",
                remedy="pip install 'mla-tune[postgres]'",
            ) from None
        except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
            raise InputError(
                f"studies cannot be kept in {self.name}: {_first_line(error)}",
                remedy="name another database with --storage, or start this one",
            ) from None

    def journal(self, subject: Subject) -> Journal:
        """The studies of one table."""
        return Journal.over(self._storage, subject)

    @contextlib.contextmanager
    def failures_named(self) -> Iterator[None]:
        """Say which database failed, whoever asked it."""
        try:
            yield
        except (SQLAlchemyError, StorageInternalError) as error:
            raise EnvironmentFailure(
                f"the studies in {self.name} cannot be reached: {_first_line(error)}",
                remedy="finished trials are kept; run the same command again",
            ) from None

    def close(self) -> None:
        """Let other runs have what this one claimed."""
        self._held.close()


def _locked(path: Path, name: str) -> int:
    """Hold a file of SQLite's, which hands out nothing exactly once to two runs."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open_own(path.with_name(f"{path.name}.in-use"), os.O_RDWR)
    except OSError as error:
        raise InputError(f"{name} cannot be written: {error.strerror or error}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise InputError(
            f"{name} is in use by another run",
            remedy="wait for it; several runs at once can share a database of PostgreSQL's",
        ) from None
    return handle


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, StorageInternalError) else None
    text = str(getattr(cause or error, "orig", None) or cause or error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
