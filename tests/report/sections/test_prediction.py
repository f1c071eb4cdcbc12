"""A table's model beside what was measured."""

import dataclasses

from mla_tune.report.material import Material
from mla_tune.report.sections.prediction import prediction
from mla_tune.report.tried import recorded
from modelled_table import MODEL
from report_material import ROOT, shipped


def modelled():
    (table,) = shipped("TRITON_MLA-NVIDIA_H200-heads_16-kv_auto-eager")
    return dataclasses.replace(table, file=dataclasses.replace(table.file, between=MODEL))


def test_predictions_stand_beside_measured_decodes():
    table = modelled()
    (figure,) = prediction(Material([table])).figures
    assert all("q1s" in row[0] for row in figure.numbers.rows)
    ratios = [float(row[-1]) for row in figure.numbers.rows]
    assert 0.8 < sorted(ratios)[len(ratios) // 2] < 1.2


def test_tried_plans_of_the_same_setup_add_points():
    table = modelled()
    tried = recorded(ROOT / "tests/data/h200_16_heads.jsonl.gz").tried
    (alone,) = prediction(Material([table])).figures
    (more,) = prediction(Material([table], tried=tried)).figures
    assert len(more.numbers.rows) > 2 * len(alone.numbers.rows)


def test_without_a_model_there_is_nothing():
    found = shipped("TRITON_MLA-NVIDIA_H200-heads_16-kv_auto-eager")
    assert prediction(Material(found)).figures == []
