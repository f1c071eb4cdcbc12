"""Plans that took a worker down or gave wrong results, and are not tried again for now."""

__all__ = ["Quarantine", "Ward"]

import contextlib
import copy
import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.files.atomic_write import write_atomically
from mla_tune.files.document import MOST_BYTES, Document, Kind
from mla_tune.files.own_file import append_whole, kept_beside
from mla_tune.files.regular_file import file_stamp, open_regular, read_text
from mla_tune.plan.plan import Plan

KIND = Kind("quarantine file")
HEAD = "quarantine:\n"
FIELDS = ("backend", "device", "model", "kv_cache_dtype", "mode", "shape", "plan", "reason",
          "software", "software_digest")  # fmt: skip
KEY_FIELDS = ("backend", "device", "model", "kv_cache_dtype", "mode", "shape", "plan",
              "software_digest", "settings")  # fmt: skip


@dataclass(frozen=True)
class Ward:
    """What a quarantine entry is true for, besides shape and plan.

    ``settings`` are those of the engine that vLLM would not choose; entries without have none.
    """

    backend: str
    device: str
    model: dict[str, int]
    kv_cache_dtype: str
    mode: str
    software: dict[str, str]
    software_digest: str
    settings: dict[str, str | int] = dataclasses.field(default_factory=dict)


class Quarantine:
    """``quarantine.yaml``: a list of plans with what happened; an addition appends to it.

    A damaged file is kept beside under another name, and what can be read of it goes on.

    Args:
        path: the file; it need not exist.
        notice: told of a file that was damaged.

    Raises:
        InputError: what is there cannot be read at all, such as a folder.
        EnvironmentFailure: a damaged file cannot be mended.
    """

    def __init__(self, path: Path, notice: Callable[[str], None] = lambda _what: None) -> None:
        self.path = path
        self._notice = notice
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        self._stamp: tuple[int, ...] | None = None
        self._list = _List()
        self._reasons: dict[str, str] = {}
        self._read()

    def reason(self, ward: Ward, shape: str, plan: Plan) -> str | None:
        """Why ``plan`` is not to be tried, or None. Another software fingerprint frees it."""
        return self._reasons.get(_comparable(_key(ward, shape, plan)))

    def add(self, ward: Ward, shape: str, plan: Plan, reason: str) -> None:
        """Record what happened to ``plan``; it is on disk when this returns.

        Raises:
            InputError: the file has become something that cannot be read since.
            EnvironmentFailure: it cannot be written.
        """
        key = _key(ward, shape, plan)
        found = key | {"reason": reason, "software": ward.software}
        kept = (*FIELDS, "settings") if ward.settings else FIELDS
        entry = {field: found[field] for field in kept}
        try:
            with self._lock:
                # Another run that shares the folder may have added to the file since.
                self._read()
                if self.reason(ward, shape, plan) is None:
                    self._write(entry)
                    self._reasons[_comparable(key)] = reason
        except OSError as error:
            raise EnvironmentFailure(f"{self.path} cannot be written: {error}") from None

    def _read(self) -> None:
        """Take the file as it is, unless it is what was read or written last."""
        stamp = file_stamp(self.path)
        if stamp is not None and stamp == self._stamp:
            return
        try:
            self._list = _List.read(self.path) if stamp is not None else _List()
        except InputError as damage:
            self._mend(damage)
            stamp = file_stamp(self.path)
        self._reasons = {}
        for entry in self._list.entries:
            key = {field: entry.get(field, {}) for field in KEY_FIELDS}
            self._reasons.setdefault(_comparable(key), str(entry["reason"]))
        self._stamp = stamp

    def _mend(self, damage: InputError) -> None:
        """Keep the damaged file beside, and write what can be read of it in its place."""
        entries = _salvaged(self.path)
        try:
            with self._lock:
                aside = kept_beside(self.path)
                write_atomically(self.path, HEAD + _spelled(entries) if entries else "")
        except OSError as error:
            raise EnvironmentFailure(f"{self.path} cannot be written: {error}") from None
        self._list = _List(entries, ends_the_file=bool(entries))
        self._notice(
            f"{damage.what}: {len(entries)} of its plans can be read and are not tried again; the "
            f"damaged file is kept as {aside.name}"
        )

    def _write(self, entry: dict[str, Any]) -> None:
        """Append an entry: a list of thousands is not written again for each."""
        entries = self._list.entries
        if self._list.ends_the_file:
            append_whole(self.path, _spelled([entry]))
        else:
            write_atomically(self.path, HEAD + _spelled([*entries, entry]))
        entries.append(entry)
        self._list = _List(entries, ends_the_file=True)
        self._stamp = file_stamp(self.path)


@dataclass(frozen=True)
class _List:
    """The entries of a file, and whether another can be appended to its text."""

    entries: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    ends_the_file: bool = False

    @classmethod
    def read(cls, path: Path) -> "_List":
        text = read_text(path, what=KIND.name, most_bytes=MOST_BYTES)
        if not text:
            return cls()
        try:
            entries = _entries_of(path, text)
        except InputError:
            start = text.rfind("\n-") + 1
            if not start or not _is_torn(text[start:]):
                raise
            return cls(_entries_of(path, text[:start]))
        try:
            longer = _entries_of(path, text + _spelled([entries[-1]])) if entries else []
        except InputError:
            longer = []
        return cls(entries, ends_the_file=longer == [*entries, *entries[-1:]])


def _salvaged(path: Path) -> list[dict[str, Any]]:
    """The entries of a damaged file that can be read one by one."""
    with open_regular(path, what=KIND.name) as file:
        text = file.read(MOST_BYTES).decode("utf-8", "replace")
    found: list[dict[str, Any]] = []
    for block in re.split(r"^(?=- )", text, flags=re.MULTILINE)[1:]:
        if "\ufffd" not in block:
            with contextlib.suppress(InputError):
                found += _entries_of(path, HEAD + block)
    return found


def _is_torn(tail: str) -> bool:
    """Whether a text is the beginning of an entry, as a power cut leaves it."""
    names = tuple(re.findall(r"^[- ] (\w+):", tail, re.MULTILINE))
    return not tail.endswith("\n") or names == FIELDS[: min(len(names), FIELDS.index("software"))]


def _entries_of(path: Path, text: str) -> list[dict[str, Any]]:
    document = Document.parse(path, text, KIND)
    entries = document.data.get("quarantine")
    if not isinstance(entries, list):
        raise InputError(f"{path} has no list 'quarantine'", remedy="move it away")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not {"shape", "plan", "reason"} <= entry.keys():
            where = document.where(("quarantine", index))
            raise InputError(f"{where}: not a quarantine entry", valid=", ".join(FIELDS))
    return entries


def _spelled(entries: list[dict[str, Any]]) -> str:
    # A copy of each entry: values that entries share would be written as YAML anchors.
    copies = [copy.deepcopy(entry) for entry in entries]
    return yaml.safe_dump(copies, sort_keys=False, width=1000)


def _comparable(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True, default=str)


def _key(ward: Ward, shape: str, plan: Plan) -> dict[str, Any]:
    return {
        "backend": ward.backend,
        "device": ward.device,
        "model": ward.model,
        "kv_cache_dtype": ward.kv_cache_dtype,
        "mode": ward.mode,
        "shape": shape,
        "plan": dict(plan),
        "software_digest": ward.software_digest,
        "settings": ward.settings,
    }
