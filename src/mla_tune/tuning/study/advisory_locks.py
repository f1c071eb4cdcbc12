"""Claims that end with the connection of who made them: PostgreSQL's advisory locks."""

__all__ = ["AdvisoryLocks"]

import contextlib
import hashlib
import threading
from collections.abc import Iterator

from sqlalchemy import BigInteger, bindparam, create_engine, func, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

# A host that is lost without a word lets go after a minute and a half.
KEEPALIVES = {"tcp_keepalives_idle": 30, "tcp_keepalives_interval": 10, "tcp_keepalives_count": 6}

_KEY = bindparam("key", type_=BigInteger)
_TRY = select(func.pg_try_advisory_lock(_KEY))
_WAIT = select(func.pg_advisory_lock(_KEY))
_UNLOCK = select(func.pg_advisory_unlock(_KEY))


class AdvisoryLocks:
    """Which units this run has; the server gives back those of a run that has ended, also by -9.

    They are the session's, so a pooler that changes the session between transactions must not
    stand in between. May be asked by several threads.

    Args:
        url: of a database of PostgreSQL's.

    Raises:
        SQLAlchemyError: nothing answers there.
    """

    def __init__(self, url: URL) -> None:
        engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self._connection = engine.connect()
        for setting, value in KEEPALIVES.items():
            self._connection.execute(text(f"SET {setting} = {value}"))
        self._mutex = threading.Lock()
        self._held: set[str] = set()

    def claim(self, key: str) -> bool:
        """Whether ``key`` is this run's from now on.

        Raises:
            SQLAlchemyError: the connection is gone, and with it all that was claimed.
        """
        with self._mutex:
            # A lock that is held already would count twice, and one look at the server tells
            # whether the others are still held.
            if key in self._held:
                self._connection.execute(select(1))
                return True
            if not self._connection.execute(_TRY, {"key": _number(key)}).scalar():
                return False
            self._held.add(key)
            return True

    def release(self, key: str) -> None:
        """Let other runs have ``key``. Raises as `claim` does."""
        with self._mutex:
            if key in self._held:
                self._held.remove(key)
                self._connection.execute(_UNLOCK, {"key": _number(key)})

    @contextlib.contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Wait until no other run does ``what``."""
        key = {"key": _number(what)}
        with self._mutex:
            self._connection.execute(_WAIT, key)
        try:
            yield
        finally:
            with self._mutex:
                self._connection.execute(_UNLOCK, key)

    def close(self) -> None:
        """Give all of it back, now: the server notices the end of a connection a little later."""
        with contextlib.suppress(SQLAlchemyError):
            self._connection.execute(select(func.pg_advisory_unlock_all()))
        self._connection.close()


def _number(key: str) -> int:
    digest = hashlib.blake2b(f"mla-tune {key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
