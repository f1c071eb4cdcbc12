"""What stands on the page, without a browser."""

import sys
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mla_tune.errors import InputError
from mla_tune.report.material import Material, gather
from mla_tune.report.page import page, sections_of
from mla_tune.report.tried import Failed
from report_material import OF, ROOT, material, shipped


class _Structure(HTMLParser):
    """Elements and the names of their attributes, and all text outside of scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        # A long cell may be broken into lines.
        told = (name for name, value in attributes if (tag, value) != ("td", "long"))
        self.elements.append((tag, *told))

    def handle_data(self, data):
        self.text.append(data)


def written(given: Material) -> str:
    return page(given, sections_of(given))


@pytest.fixture
def without_plotly(monkeypatch):
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "")


def of_strings(text: str) -> Material:
    (table,) = shipped("FLASHMLA_SPARSE-NVIDIA_H200-heads_16-kv_auto-graph")
    device = table.file.header.device.model_copy(update={"name": text, "unwatched": text})
    software = {"vllm": text, text: text}
    header = table.file.header.model_copy(update={"device": device, "software": software})
    entry = table.file.entries[0].model_copy(update={"note": text})
    object.__setattr__(table.file, "header", header)
    object.__setattr__(table.file, "entries", (entry, *table.file.entries[1:]))
    return Material([table], failed=[Failed(OF, text, text, text)], notices=[text])


HOSTILE = st.text(min_size=1) | st.sampled_from(
    ["</script><script>alert(1)</script>", '" onload="x', "<img src=x onerror=y>", "{{ 7 * 7 }}",
     "]]>", "<!--", "&lt;", "' autofocus", "@1"]
)  # fmt: skip


def page_of(text: str) -> _Structure:
    return _Structure(written(of_strings(text)))


@pytest.mark.usefixtures("without_plotly")
def test_every_string_of_a_table_is_text():
    plain = page_of("x").elements

    @settings(max_examples=40, deadline=None)
    @given(HOSTILE)
    def holds(text):
        assert page_of(text).elements == plain

    holds()
    assert "<b>x</b> & 'y'" in page_of("<b>x</b> & 'y'").text


@pytest.mark.usefixtures("without_plotly")
def test_what_is_missing_says_what_brings_it():
    text = " ".join(_Structure(written(material("FLASHMLA-NVIDIA_H200-heads_16"))).text)
    for wanted in ("--study-dir DIR", "--recording FILE", "mla-tune retune", "'between'"):
        assert wanted in text
    assert "Not in this report" in text


@pytest.mark.usefixtures("without_plotly")
def test_the_numbers_of_a_table_stand_on_the_page_with_their_intervals():
    (table,) = shipped("TRITON_MLA-NVIDIA_H100_80GB_HBM3-heads_64")
    text = set(_Structure(written(Material([table]))).text)
    for entry in table.file.entries:
        for case in entry.cases if entry.plan else ():
            assert str(case.speedup) in text


def test_an_extra_that_is_missing_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(InputError, match=r"pip install 'mla-tune\[report\]'"):
        written(material("FLASHMLA-NVIDIA_H200-heads_16"))


def test_tables_that_win_most_come_first():
    found = gather(shipped("TRITON_MLA-NVIDIA_H200"))
    modes = [table.file.header.engine.mode for table in found.tables]
    assert modes == ["graph", "graph", "graph", "eager", "eager"]
    assert found.tables[0].path.parent == ROOT / "tuned_configs"
