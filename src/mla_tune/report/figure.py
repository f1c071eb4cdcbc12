"""What the report is made of: sections of figures, each with the numbers behind it."""

__all__ = ["FACETS", "Facets", "Figure", "Numbers", "Section", "Setting", "facets", "model_text"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FACETS = {"gpu": "GPU", "backend": "Backend", "heads": "Heads", "mode": "Mode", "kv": "KV dtype"}
"""By what a reader filters, and how it is called on the page."""

Facets = Mapping[str, str]


def facets(gpu: str, backend: str, heads: int, mode: str, kv: str) -> Facets:
    """What a figure, a line in it or a row of numbers is of; ``kv`` is the cache's dtype."""
    return {"gpu": gpu, "backend": backend, "heads": str(heads), "mode": mode, "kv": kv}


@dataclass(frozen=True)
class Setting:
    """What latencies in one plot have in common.

    Attributes:
        of: what a reader filters by.
        vllm: its release, or empty.
        model: the dimensions, as text.
    """

    of: Facets
    vllm: str
    model: str

    @property
    def key(self) -> tuple[str, ...]:
        return (*self.of.values(), self.vllm, self.model)

    @property
    def title(self) -> str:
        of = self.of
        first = f"{of['backend']} · {of['heads']} heads · {of['mode']} · KV {of['kv']}"
        return f"{first} · {of['gpu']}" + (f" · vLLM {self.vllm}" if self.vllm else "")


def model_text(sizes: Mapping[str, int]) -> str:
    """Dimensions as the attributes of a study have them."""
    return ", ".join(f"{name} {size}" for name, size in sizes.items())


@dataclass(frozen=True)
class Numbers:
    """The numbers behind a figure, as text.

    Attributes:
        columns: their names.
        rows: one cell a column.
        of: what each row is of, for the filters; empty where all are of what the figure is.
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    of: Sequence[Facets] = ()


@dataclass(frozen=True)
class Figure:
    """One plot. Without traces it is its numbers alone.

    Attributes:
        title: says what it is of.
        text: what is to be seen, for those who do not see it.
        numbers: what it was drawn from.
        of: what it is of, for the filters. Where that differs from trace to trace, it is empty,
            and each trace has its own under ``meta``.
        traces, layout: Plotly's, where a string that begins with ``@`` is a colour of a theme.
    """

    title: str
    text: str
    numbers: Numbers
    of: Facets
    traces: Sequence[Mapping[str, Any]] = ()
    layout: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Section:
    """Figures that answer one question.

    Attributes:
        key: its anchor on the page.
        title: of the section.
        reading: how to read its plots, in a sentence or two.
        figures: none where nothing was given for it.
        brought_by: what would bring it then.
    """

    key: str
    title: str
    reading: str
    figures: Sequence[Figure]
    brought_by: str
