"""Histories, night by night."""

from mla_tune.nightly.history import History, history_path
from mla_tune.report.material import gather
from mla_tune.report.sections.histories import histories
from readings import nights as readings
from report_material import shipped


def test_a_history_beside_a_table_is_found_and_its_change_marked(tmp_path):
    (table,) = shipped("TRITON_MLA-NVIDIA_H100_80GB_HBM3-heads_64")
    copy = tmp_path / table.path.name
    copy.write_bytes(table.path.read_bytes())
    went = [100.0, 100.2, 99.9, 100.1, 100.0, 120.0, 120.1, 119.9, 120.0, 120.1]
    History(history_path(tmp_path, table.file.header)).append(readings(went))
    found = gather([type(table)(copy, table.file)])
    (figure,) = histories(found).figures
    (row,) = figure.numbers.rows
    assert (row[0], row[2]) == ("8q1s1k", "10")
    assert "1.20×" in row[-1]
    line, rings = figure.traces
    assert len(line["x"]) == 10
    assert rings["y"] == [1.2]
