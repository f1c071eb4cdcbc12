"""How the cache of serve and prepare is shown: as text and for programs."""

__all__ = ["cache_json", "cache_text"]

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mla_tune.errors import InputError
from mla_tune.printable import counted
from mla_tune.serving.cache import Cache
from mla_tune.table import TableFile


def cache_text(cache: Cache) -> str:
    """A line for each slot and each of its tables."""
    lines = [str(cache.folder)]
    for slot in cache.slots():
        days = (time.time() - slot.last_used_s) / 86400
        lines.append(
            f"{slot.path.name}: {slot.num_bytes / 2**20:.1f} MiB, used {days:.0f} days ago"
        )
        for table in slot.tables:
            count, problem = _looked_into(table)
            lines.append("  " + (problem or f"{table.name}: {counted(count or 0, 'entry')}"))
    return "\n".join(lines)


def cache_json(cache: Cache) -> dict[str, Any]:
    """All of it, for a program."""
    slots = []
    for slot in cache.slots():
        tables = [(table, *_looked_into(table)) for table in slot.tables]
        slots.append(
            {
                "name": slot.path.name,
                "num_bytes": slot.num_bytes,
                "last_used": datetime.fromtimestamp(slot.last_used_s, UTC).isoformat(),
                "tables": [
                    {"path": str(path), "num_entries": count, "problem": problem}
                    for path, count, problem in tables
                ],
            }
        )
    return {"folder": str(cache.folder), "slots": slots}


def _looked_into(table: Path) -> tuple[int | None, str | None]:
    """How many entries a table has, or what is wrong with it."""
    try:
        return len(TableFile.load(table).entries), None
    except InputError as error:
        return None, error.what
