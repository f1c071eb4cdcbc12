"""Latency against splits, with the default and the winner marked."""

from mla_tune.report.material import Material
from mla_tune.report.sections.split_counts import MOST_LINES, split_counts
from mla_tune.report.tried import recorded
from report_material import ROOT


def test_each_batch_has_its_default_and_its_winner():
    tried = recorded(ROOT / "tests/data/h100/graph_triton_mla_splits.jsonl.gz").tried
    lines, heat_map = split_counts(Material((), tried=tried)).figures
    (grid,) = heat_map.traces
    assert len(grid["y"]) == len(tried)
    for row in grid["text"]:
        marks = "".join(row)
        assert (marks.count("○"), marks.count("★")) == (1, 1)
    assert sum("name" in trace for trace in lines.traces) == MOST_LINES


def test_plans_with_other_launches_are_left_out():
    path = ROOT / "tests/data/h100/eager_triton_mla_launches_128.jsonl.gz"
    _, heat_map = split_counts(Material((), tried=recorded(path).tried)).figures
    assert len(heat_map.traces[0]["x"]) < 20
