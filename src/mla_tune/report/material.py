"""What a report is made from: tables, and what lies beside them or is given."""

__all__ = ["Material", "gather", "of_table", "setting_of", "title_of"]

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mla_tune.catalogue.found import FoundTable
from mla_tune.nightly.history import History, history_path
from mla_tune.report.figure import Facets, Setting, facets, model_text
from mla_tune.report.mean_gain import mean_gain
from mla_tune.report.tried import Failed, Tried, recorded, studied
from mla_tune.shapes import format_size


@dataclass(frozen=True)
class Material:
    """Everything that sections are drawn from.

    Attributes:
        tables: those that win most come first.
        histories: what nights have measured, with the table that they are of.
        tried: what single plans took.
        failed: plans that have no latency.
        notices: what could not be read, a line each.
    """

    tables: Sequence[FoundTable]
    histories: Sequence[tuple[FoundTable, History]] = ()
    tried: Sequence[Tried] = ()
    failed: Sequence[Failed] = ()
    notices: Sequence[str] = field(default=())


def gather(
    tables: Sequence[FoundTable],
    study_dir: Path | None = None,
    recordings: Iterable[Path] = (),
    problems: Iterable[str] = (),
) -> Material:
    """Read what lies beside ``tables``, and what else is given; ``problems`` are known already.

    Raises:
        InputError: a study folder, a recording or a history that cannot be read.
    """
    tried: list[Tried] = []
    failed: list[Failed] = []
    notices = list(problems)
    sources = [recorded(path) for path in recordings]
    if study_dir is not None:
        sources.append(studied(study_dir))
    for source in sources:
        tried += source.tried
        failed += source.failed
        notices += source.notices
    histories, seen = [], set()
    tables = sorted(tables, key=_gain, reverse=True)
    for table in tables:
        path = history_path(table.path.parent, table.file.header)
        if path in seen or not path.exists():
            continue
        seen.add(path)
        history = History.load(path)
        notices += history.notices
        histories.append((table, history))
    return Material(tables, histories, tried, failed, notices)


def _gain(table: FoundTable) -> float:
    gain = mean_gain(table.file.entries)
    return 0.0 if gain is None else gain.median


def of_table(table: FoundTable) -> Facets:
    """What a table is of."""
    return setting_of(table).of


def setting_of(table: FoundTable) -> Setting:
    """The same with its release of vLLM and its dimensions."""
    header = table.file.header
    of = facets(
        header.device.name,
        header.backend,
        header.model["num_q_heads"],
        header.engine.mode,
        header.kv_cache_dtype,
    )
    return Setting(of, header.software.get("vllm", ""), model_text(header.model))


def title_of(table: FoundTable) -> str:
    """What a table is of, in a line."""
    reach = format_size(table.file.header.engine.max_model_len)
    return f"{setting_of(table).title} · up to {reach}"
