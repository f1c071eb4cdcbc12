"""What a run has come to, in a few lines: the gain, what failed, and what to do next."""

__all__ = ["headline"]

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from mla_tune.catalogue.summary import Summary
from mla_tune.printable import counted
from mla_tune.table import Entry


def headline(
    entries: Sequence[Entry],
    paths: Sequence[Path],
    *,
    servable: Sequence[Path],
    num_failed: int,
    num_from_study: int,
    since: str = "",
) -> list[str]:
    """The lines at the end of a run.

    Args:
        entries: what is decided and in its table.
        paths: the tables.
        servable: those that have a plan, and are of a backend of vLLM.
        num_failed: batch shapes without an entry.
        num_from_study: entries that an earlier run had measured.
        since: when that was.
    """
    failed = [f"{counted(num_failed, 'batch shape')} failed"] if num_failed else []
    if not entries:
        return failed
    found = Summary.of(entries)
    unproven = sum(entry.unproven is not None for entry in entries)
    num_kept = len(entries) - found.num_plans
    kept = f"{num_kept} {'keeps' if num_kept == 1 else 'keep'} the default"
    kept += f" ({unproven} of them unproven: run again to measure them anew)" if unproven else ""
    told = [f"{found.num_plans} of {counted(len(entries), 'batch shape')} improved", kept, *failed]
    if found.num_plans and found.gain is not None:
        told[0] += f", all together {found.gain:.2f}× in the geometric mean"
    lines = ["; ".join(told)]
    if num_from_study:
        lines.append(
            f"taken from the study of an earlier run, not measured today: {num_from_study}"
            f"{f' (measured {since})' if since else ''}"
        )
    if servable:
        folders = os.pathsep.join(dict.fromkeys(str(path.parent.absolute()) for path in servable))
        lines.append(f"to serve with them: MLA_TUNE_TABLES={shlex.quote(folders)} vllm serve …")
    shown = " ".join(shlex.quote(str(path)) for path in paths)
    lines.append(f"to read them: {_as_typed()} show {shown}")
    return lines


def _as_typed() -> str:
    """The command's name, or where it lies if a shell would not find it by its name."""
    name, started = "mla-tune", Path(sys.argv[0])
    if started.name != name or shutil.which(name) is not None:
        return name
    here = Path.cwd()
    path = started.absolute()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
