"""Plans that took a worker down or gave wrong results, and are not tried again for now."""

__all__ = ["Quarantine", "Ward"]

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from mla_tune.document import Document, Kind
from mla_tune.errors import EnvironmentFailure, InputError
from mla_tune.knobs import Plan
from mla_tune.regular_file import write_atomically

FIELDS = ("backend", "device", "model", "kv_cache_dtype", "mode", "shape", "plan", "reason",
          "software", "software_digest")  # fmt: skip


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
    """``quarantine.yaml``: a list of plans with what happened, rewritten whole on each addition.

    Raises:
        InputError: the file is there and is not a quarantine list.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries = _entries_of(path)

    def reason(self, ward: Ward, shape: str, plan: Plan) -> str | None:
        """Why ``plan`` is not to be tried, or None. Another software fingerprint frees it."""
        wanted = _key(ward, shape, plan)
        for entry in self._entries:
            known = {"settings": {}} | entry
            if all(known.get(field) == value for field, value in wanted.items()):
                return str(entry["reason"])
        return None

    def add(self, ward: Ward, shape: str, plan: Plan, reason: str) -> None:
        """Record what happened to ``plan``.

        Raises:
            EnvironmentFailure: the file cannot be written.
        """
        entry = _key(ward, shape, plan) | {"reason": reason, "software": ward.software}
        try:
            with FileLock(self.path.with_name(f".{self.path.name}.lock")):
                # Another run that shares the folder may have added to the file since.
                self._entries = _entries_of(self.path)
                if self.reason(ward, shape, plan) is None:
                    kept = (*FIELDS, "settings") if ward.settings else FIELDS
                    self._entries.append({field: entry[field] for field in kept})
                    write_atomically(self.path, _text(self._entries))
        except OSError as error:
            raise EnvironmentFailure(f"{self.path} cannot be written: {error}") from None


def _entries_of(path: Path) -> list[dict[str, Any]]:
    if not path.exists() or not path.stat().st_size:
        return []
    document = Document.load(path, Kind("quarantine file"))
    entries = document.data.get("quarantine")
    if not isinstance(entries, list):
        raise InputError(f"{path} has no list 'quarantine'", remedy="move it away")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not {"shape", "plan", "reason"} <= entry.keys():
            where = document.where(("quarantine", index))
            raise InputError(f"{where}: not a quarantine entry", valid=", ".join(FIELDS))
    return entries


def _text(entries: list[dict[str, Any]]) -> str:
    # A copy of each entry: values that entries share would be written as YAML anchors.
    copies = [copy.deepcopy(entry) for entry in entries]
    return yaml.safe_dump({"quarantine": copies}, sort_keys=False, width=1000)


def _key(ward: Ward, shape: str, plan: Plan) -> dict[str, Any]:
    return {
        "backend": ward.backend,
        "device": ward.device,
        "model": ward.model,
        "kv_cache_dtype": ward.kv_cache_dtype,
        "mode": ward.mode,
        "shape": shape,
        "plan": plan.as_dict(),
        "software_digest": ward.software_digest,
        "settings": ward.settings,
    }
