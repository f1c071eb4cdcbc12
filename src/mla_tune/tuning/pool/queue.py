"""The units of a run that wait for a device, and who has which."""

__all__ = ["PAUSE_S", "Claims", "UnitQueue"]

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from mla_tune.measuring.worker_client import Stopped
from mla_tune.tuning.pool.member import Member
from mla_tune.tuning.pool.shared_table import SharedTable, Unit

PAUSE_S = 2.0
"""Between two looks at what other runs have."""


class Claims(Protocol):
    """Which units this run has for itself, where several share their studies."""

    def claim(self, key: str) -> bool:
        """Whether this run has the unit from now on, until `release` or its own end."""
        ...

    def release(self, key: str) -> None: ...


class NoClaims:
    """All units are this run's: nobody else has its journals."""

    def claim(self, key: str) -> bool:
        del key
        return True

    def release(self, key: str) -> None:
        del key


class UnitQueue:
    """Hands out units, longest first; each is with one device at a time.

    A device stays with a table while that has units, since another takes a session of its own.

    Args:
        units: all there is to do.
        claims: asked before a unit is handed out.
    """

    def __init__(self, units: Iterable[Unit], claims: Claims | None = None) -> None:
        self._waiting = sorted(units, key=lambda unit: -unit.cost)
        self._claims: Claims = claims or NoClaims()
        self._with: dict[Unit, Member] = {}
        self._changed = threading.Condition()
        self._is_stopped = False

    @property
    def waiting(self) -> tuple[Unit, ...]:
        """The units that no device has."""
        with self._changed:
            return tuple(self._waiting)

    def take(self, member: Member, current: SharedTable | None = None) -> Unit | None:
        """The next unit for ``member``, whose session is open for ``current``.

        Waits while there is none but another device may give one back. None: there is nothing
        left that it can do, at least for now: other runs may have what waits.
        """
        with self._changed:
            while not self._is_stopped:
                unit = self.offer(member, current)
                if unit is not None:
                    return unit
                if not any(unit.table.kind == member.kind for unit in self._with):
                    return None
                self._changed.wait()
            return None

    def offer(self, member: Member, current: SharedTable | None = None) -> Unit | None:
        """As `take`, without waiting."""
        with self._changed:
            unit = self._next(member, current)
            if unit is not None:
                self._waiting.remove(unit)
                self._with[unit] = member
            return unit

    def _next(self, member: Member, current: SharedTable | None) -> Unit | None:
        tables: dict[SharedTable, list[Unit]] = {}
        for unit in self._waiting:
            if unit.table.kind == member.kind and member not in unit.table.cannot_open:
                tables.setdefault(unit.table, []).append(unit)

        def left(table: SharedTable) -> tuple[bool, float]:
            others = sum(unit.table is table for unit in self._with)
            return table is current, sum(unit.cost for unit in tables[table]) / (1 + others)

        for table in sorted(tables, key=left, reverse=True):
            for unit in tables[table]:
                if self._claims.claim(unit.key):
                    return unit
        return None

    def done(self, unit: Unit) -> bool:
        """Take note that ``unit`` needs no device for now; whether it was its table's last."""
        with self._changed:
            del self._with[unit]
            self._changed.notify_all()
            left = (*self._waiting, *self._with)
            return not any(other.table is unit.table for other in left)

    def lost(self, member: Member) -> None:
        """Have what ``member`` is at done by another device."""
        with self._changed:
            self.put_back([unit for unit, owner in self._with.items() if owner is member])

    def put_back(self, units: Iterable[Unit]) -> None:
        """Have ``units`` done by another device than the one that had them."""
        with self._changed:
            for unit in units:
                self._with.pop(unit, None)
                self._waiting.append(unit)
            self._waiting.sort(key=lambda unit: -unit.cost)
            self._changed.notify_all()

    def withdraw(self, table: SharedTable) -> list[Unit]:
        """Take out what waits of one table, which is given up."""
        with self._changed:
            found = [unit for unit in self._waiting if unit.table is table]
            self._waiting = [unit for unit in self._waiting if unit.table is not table]
            self._changed.notify_all()
            return found

    def release(self, unit: Unit) -> None:
        """Let other runs see that ``unit`` is decided."""
        self._claims.release(unit.key)

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Claim what is no unit, and wait while another run has it.

        Raises:
            Stopped: the run ended meanwhile.
        """
        while not self._claims.claim(key):
            if self._is_stopped:
                raise Stopped
            time.sleep(PAUSE_S)
        try:
            yield
        finally:
            self._claims.release(key)

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
