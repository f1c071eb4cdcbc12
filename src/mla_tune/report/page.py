"""The page: one file that needs no network, with all plots and their numbers in it."""

__all__ = ["numbered", "page", "plain", "sections_of"]

from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

from mla_tune import __version__
from mla_tune.errors import InputError
from mla_tune.report.figure import FACETS, Facets, Figure, Section
from mla_tune.report.labels import labelled
from mla_tune.report.material import Material, of_table
from mla_tune.report.sections import SECTIONS
from mla_tune.report.theme import THEMES, template


def sections_of(material: Material) -> list[Section]:
    """All sections, those too for which nothing was given."""
    return [build(material) for build in SECTIONS]


def page(material: Material, sections: Sequence[Section]) -> str:
    """The report as HTML.

    Raises:
        InputError: Plotly or Jinja is not installed.
    """
    try:
        import jinja2
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise InputError(
            f"a report needs {error.name}, which is not installed",
            remedy="pip install 'mla-tune[report]'",
        ) from None
    environment = jinja2.Environment(
        autoescape=True,  # every string of a table is text, and stays so
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.from_string(_asset("page.html.j2")).render(
        version=__version__,
        sections=[section for section in sections if section.figures],
        left_out=[section for section in sections if not section.figures],
        choices=_choices(material),
        facets=FACETS,
        headline=_headline(material),
        notices=material.notices,
        drawn={
            "figures": {key: plain(figure) for key, _, figure in numbered(sections)},
            "themes": THEMES,
            "template": template(),
        },
        css=_asset("page.css"),
        script=_asset("page.js"),
        plotly=get_plotlyjs(),
    )
    # A file's name may hold bytes that are no UTF-8; Python has them as lone surrogates.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _asset(name: str) -> str:
    return (resources.files("mla_tune.report") / "assets" / name).read_text(encoding="utf-8")


def numbered(sections: Sequence[Section]) -> Iterator[tuple[str, Section, Figure]]:
    """Each plot with the key of its figure on the page, and its section."""
    for section in sections:
        for number, figure in enumerate(section.figures, start=1):
            if figure.traces:
                yield f"{section.key}-{number}", section, figure


def plain(figure: Figure) -> dict[str, Any]:
    """As Plotly takes it, but for the colours."""
    return {"data": labelled(figure.traces), "layout": labelled(figure.layout or {})}


def _choices(material: Material) -> dict[str, list[str]]:
    """What there is to choose from, of each facet of which there are two or more."""
    known: list[Facets] = [of_table(table) for table in material.tables]
    known += [tried.setting.of for tried in material.tried]
    found = {name: {of[name] for of in known} for name in FACETS}
    return {
        name: sorted(
            values, key=lambda value: (len(value), value) if name == "heads" else (0, value)
        )
        for name, values in found.items()
        if len(values) > 1
    }


def _headline(material: Material) -> list[tuple[str, str]]:
    """The few figures on top: value and what it is."""
    headers = [table.file.header for table in material.tables]
    entries = [entry for table in material.tables for entry in table.file.entries]
    tuned = [entry.speedup for entry in entries if entry.plan and entry.speedup]
    best = max(tuned, key=lambda gain: gain.low, default=None)
    gpus = dict.fromkeys(header.device.name for header in headers)
    releases = dict.fromkeys(header.software.get("vllm", "") for header in headers)
    facts = [
        (str(len(headers)), "table" if len(headers) == 1 else "tables"),
        (f"{len(tuned)} of {len(entries)}", "entries faster than the default"),
    ]
    if best is not None:
        facts.append(
            (f"{best.median:.1f}×", f"largest gain of an entry ({best.low:.2f}–{best.high:.2f})")
        )
    facts.append((", ".join(gpus), "vLLM " + ", ".join(filter(None, releases))))
    return facts
