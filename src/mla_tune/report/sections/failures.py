"""Plans that failed or could not be proven, and why."""

__all__ = ["failures"]

from collections.abc import Iterator

from mla_tune.report.figure import Facets, Figure, Numbers, Section
from mla_tune.report.material import Material, of_table

COLUMNS = ("GPU", "backend", "heads", "mode", "KV dtype", "batch", "plan", "why")
NO_KNOB = "no knob matters"


def failures(material: Material) -> Section:
    """One table of numbers."""
    rows = list(_rows(material))
    numbers = Numbers(COLUMNS, [(*of.values(), *cells) for of, cells in rows], [o for o, _ in rows])
    told = f"{len(rows)} plans failed, or could not be compared with the default."
    return Section(
        "failures",
        "Plans that failed",
        "Plans that crashed, hung, gave wrong results or did not reach the kernel, and entries "
        "with a note. None of them is published.",
        [Figure("What failed, and why", told, numbers, {})] if rows else [],
        "nothing failed in what was given; --study-dir DIR and --recording FILE know of every plan",
    )


def _rows(material: Material) -> Iterator[tuple[Facets, tuple[str, ...]]]:
    for failed in material.failed:
        yield failed.of, (failed.workload, failed.plan, failed.why)
    for table in material.tables:
        for entry in table.file.entries:
            why = "" if entry.note == NO_KNOB else entry.note
            if entry.unproven is not None:
                why = "; ".join(filter(None, ("not compared with the default", why)))
            if why:
                plan = str(entry.unproven or entry.plan) or "default"
                yield of_table(table), (entry.shape, plan, why)
