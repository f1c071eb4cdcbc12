"""The tables of a night that wait for a card, and which are with one."""

__all__ = ["TableQueue"]

import threading
from collections.abc import Callable, Iterable

from mla_tune.nightly.table_night import TableNight
from mla_tune.tuning.pool.member import Kind


class TableQueue:
    """Hands out tables to cards of their kind; each is with one card at a time.

    Args:
        tables: all there is to do.
        rank: the least is handed out first.
    """

    def __init__(
        self, tables: Iterable[TableNight], rank: Callable[[TableNight], tuple[float, ...]]
    ) -> None:
        self._rank = rank
        self._waiting = sorted(tables, key=rank)
        self._taken: list[TableNight] = []
        self._changed = threading.Condition()
        self._is_stopped = False

    @property
    def waiting(self) -> tuple[TableNight, ...]:
        """The tables that no card has."""
        with self._changed:
            return tuple(self._waiting)

    def take(self, kind: Kind) -> TableNight | None:
        """The next table for a card of ``kind``.

        Waits while there is none but another card may put one back. None: there is nothing left.
        """
        with self._changed:
            while not self._is_stopped:
                table = next((each for each in self._waiting if each.target.kind == kind), None)
                if table is not None:
                    self._waiting.remove(table)
                    self._taken.append(table)
                    return table
                if not any(each.target.kind == kind for each in self._taken):
                    return None
                self._changed.wait()
            return None

    def done(self, table: TableNight) -> None:
        """Take note that ``table`` needs no card any more."""
        with self._changed:
            self._taken.remove(table)
            self._changed.notify_all()

    def put_back(self, table: TableNight) -> None:
        """Have another card go on with ``table``, or the same one with what it is due for now."""
        with self._changed:
            self._taken.remove(table)
            self._waiting = sorted([*self._waiting, table], key=self._rank)
            self._changed.notify_all()

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
