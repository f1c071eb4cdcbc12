"""The lines of a study's journal: how they are written, and what can be read of a damaged file.

A line is a record as Optuna's `JournalStorage` makes it, with fields of ours that it passes over:

    at      how many studies and trials there were before it. Optuna numbers both by counting, so
            a line that is lost would have every later one taken for its neighbour's.
    study   the name of the study that ``study_id`` means.
    sum     CRC-32 of the line without this field: a flipped bit in a latency is no latency.

Lines without them, of earlier versions, are read too.
"""

__all__ = ["Numbering", "Reading", "Record", "line_of", "read_lines", "read_next"]

import json
import re
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mla_tune.tuning.journal.records import (
    CREATE_STUDY,
    CREATE_TRIAL,
    is_whole,
    lost_study,
    lost_trial,
)

Record = dict[str, Any]

MOST_LOST = 10_000
"""Lines that a file may have lost and still be numbered; a bound on what `at` can ask for."""

_START = '{"op_code"'
_SUM = re.compile(r',"sum":"([0-9a-f]{8})"\}$')
_DECODER = json.JSONDecoder()


@dataclass
class Numbering:
    """Studies and trials as Optuna numbers them while it replays a journal."""

    study_names: list[str] = field(default_factory=list)
    num_trials: int = 0
    _known: set[str] = field(default_factory=set)

    @classmethod
    def after(cls, records: Iterable[Record]) -> "Numbering":
        """The numbers after ``records``."""
        numbering = cls()
        for record in records:
            numbering.count(record)
        return numbering

    @property
    def at(self) -> list[int]:
        return [len(self.study_names), self.num_trials]

    def knows(self, record: Record) -> bool:
        """Whether the study that ``record`` is about, if it is about one, is there."""
        return "study_id" not in record or record["study_id"] < len(self.study_names)

    def count(self, record: Record) -> None:
        """Go on by one record."""
        if record["op_code"] == CREATE_STUDY and record["study_name"] not in self._known:
            self._known.add(record["study_name"])
            self.study_names.append(record["study_name"])
        if record["op_code"] == CREATE_TRIAL and self.knows(record):
            self.num_trials += 1


def line_of(record: Record, numbering: Numbering) -> bytes:
    """The line to append for ``record``, which comes after what ``numbering`` has counted."""
    told = {name: record[name] for name in record if name not in {"at", "study", "sum"}}
    if "study_id" in told and numbering.knows(told):
        told["study"] = numbering.study_names[told["study_id"]]
    told["at"] = numbering.at
    text = json.dumps(told, separators=(",", ":"))
    return f'{text[:-1]},"sum":"{zlib.crc32(text.encode()):08x}"}}\n'.encode()


@dataclass(frozen=True)
class Reading:
    """What could be read of a journal.

    Attributes:
        records: in order; where lines are lost that others are numbered after, stand-ins.
        numbers: the line of each record, 0 for a stand-in.
        damaged: numbers of the lines, from one, that could not be read whole.
        is_torn: whether the only damage is a last line that a kill left half written.
    """

    records: list[Record]
    numbers: list[int]
    damaged: tuple[int, ...]
    is_torn: bool

    def cut(self, length: int) -> "Reading":
        """The same without all but the first ``length`` records."""
        lost = {*self.damaged, *self.numbers[length:]} - {0}
        return Reading(self.records[:length], self.numbers[:length], tuple(sorted(lost)), False)


def read_lines(content: bytes, refused: Collection[int] = ()) -> Reading:
    """Read all that can be read of a journal's ``content``, without the lines ``refused``."""
    lines = content.decode("ascii", "replace").split("\n")
    if not lines[-1]:
        lines.pop()
    pieces = list(_pieces(lines))
    names = {
        piece.record["study_id"]: piece.record["study"]
        for piece in pieces
        if piece.record is not None and {"sum", "study", "study_id"} <= piece.record.keys()
    }
    salvage = _Salvage(names)
    for piece in pieces:
        salvage.take(
            piece if piece.number not in refused else _Piece(piece.number, None, True, True)
        )
    damaged = tuple(sorted(salvage.damaged))
    is_torn = damaged == (len(lines),) and _START not in lines[-1][1:] and not _parses(lines[-1])
    return Reading(salvage.records, salvage.numbers, damaged, is_torn)


def read_next(line: bytes, numbering: Numbering) -> Record | None:
    """The record of a whole line that goes on after ``numbering``; None where it may be damaged."""
    (first, *others) = _pieces([line.decode("ascii", "replace")])
    record = first.record
    if others or first.is_damage or record is None or record.get("at") != numbering.at:
        return None
    return record


def _parses(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


@dataclass(frozen=True)
class _Piece:
    """A stretch of a line: a record, or text that is none and may have been one."""

    number: int
    record: Record | None
    is_damage: bool
    may_be_a_loss: bool = False


def _pieces(lines: Iterable[str]) -> Iterator[_Piece]:
    """Take lines apart. Two kills can leave several records, or parts of them, on one line."""
    for number, line in enumerate(lines, start=1):
        position = 0
        if not line.strip():
            yield _Piece(number, None, is_damage=True)
        while position < len(line):
            start = line.find(_START, position)
            if line[position : start if start >= 0 else None].strip():
                yield _Piece(number, None, is_damage=True, may_be_a_loss=True)
            if start < 0:
                break
            try:
                record, end = _DECODER.raw_decode(line, start)
            except (ValueError, RecursionError):
                record, end = None, start + 1
            if record is not None and not _is_sound(record, line[start:end]):
                record = None
            yield _Piece(number, record, record is None or start > 0, record is None)
            position = end


def _is_sound(record: Record, text: str) -> bool:
    if "�" in text or not is_whole(record):
        return False
    found = _SUM.search(text)
    if found is None:
        return "sum" not in record
    rest = text[: found.start()] + "}"
    return zlib.crc32(rest.encode()) == int(found[1], 16)


class _Salvage:
    """Takes pieces in order and keeps the records whose numbers can be trusted."""

    def __init__(self, names: dict[int, str]) -> None:
        self.records: list[Record] = []
        self.numbers: list[int] = []
        self.damaged: set[int] = set()
        self._names = names
        self._numbering = Numbering()
        self._summed = False
        self._lost = False
        self._ended = False
        self._stand_ins = 0

    def take(self, piece: _Piece) -> None:
        """Keep a piece's record, or note that something is damaged."""
        record, number = piece.record, piece.number
        if piece.is_damage:
            self.damaged.add(number)
        if record is None:
            self._lost = self._lost or piece.may_be_a_loss
        elif "sum" in record:
            self._summed = True
            if self._caught_up(record["at"]):
                self._keep(record, number)
                self._lost = False
            else:
                self.damaged.add(number)
        elif not self._summed and not self._ended and self._is_safe(record):
            self._keep(record, number)
        else:
            self.damaged.add(number)
            self._ended = self._ended or record["op_code"] == CREATE_STUDY

    def _keep(self, record: Record, number: int = 0) -> None:
        self.records.append(record)
        self.numbers.append(number)
        self._numbering.count(record)

    def _is_safe(self, record: Record) -> bool:
        """Whether a record without ``at`` cannot be taken for another one's neighbour.

        After a loss the number of a trial says nothing, and that of a study only until the next
        one is created.
        """
        if not self._numbering.knows(record):
            return False
        if not self._lost:
            return True
        if record["op_code"] == CREATE_STUDY:
            return record["study_name"] in self._numbering.study_names
        return "trial_id" not in record

    def _caught_up(self, at: list[int]) -> bool:
        """Put stand-ins where studies and trials are lost; False where that cannot be right."""
        studies, trials = at
        num_studies, num_trials = self._numbering.at
        lost = studies - num_studies, trials - num_trials
        if min(lost) < 0 or self._stand_ins + sum(lost) > MOST_LOST or (lost[1] and not studies):
            return False
        self._stand_ins += sum(lost)
        for number in range(num_studies, studies):
            self._keep(lost_study(self._names.get(number, f"lost {number}")))
        for _ in range(lost[1]):
            self._keep(lost_trial())
        return self._numbering.at == at
