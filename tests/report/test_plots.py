"""Plots as files, by the browser that draws the page's."""

from xml.etree import ElementTree

from mla_tune.report.plots import write_plots
from mla_tune.report.sections.overview import overview
from report_material import chromium, material


def test_each_plot_is_an_svg_named_by_its_section(tmp_path):
    chromium()
    drawn = overview(material("TRITON_MLA-NVIDIA_H200-heads_16"))
    assert write_plots([drawn], tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["tuned-1.svg"]
    root = ElementTree.parse(tmp_path / "tuned-1.svg").getroot()
    text = "".join(root.itertext())
    assert "Mean gain of each table" in text
    assert "TRITON_MLA 16 graph, H200" in text
    assert "2.90× (2.90–2.90)" in text
