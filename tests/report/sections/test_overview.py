"""What was tuned: a row a table."""

import dataclasses
from pathlib import Path

from mla_tune.report.material import Material
from mla_tune.report.sections.overview import overview
from report_material import shipped


def test_tables_of_one_name_have_rows_of_their_own():
    (table,) = shipped("TRITON_MLA-NVIDIA_H200-heads_16-kv_auto-graph")
    newer = table.file.header.model_copy(update={"software": {"vllm": "0.33.0"}})
    other = dataclasses.replace(table, file=dataclasses.replace(table.file, header=newer))
    moved = dataclasses.replace(other, path=Path("elsewhere.yaml"))
    (figure,) = overview(Material([table, other, moved])).figures
    names = [trace["y"][0] for trace in figure.traces]
    assert len(set(names)) == 3
    assert names[-1] == "TRITON_MLA 16 graph, H200, 0.26.0"
    assert names[0].endswith("elsewhere.yaml")


def test_tables_for_other_engines_are_told_apart_by_their_lengths():
    (table,) = shipped("TRITON_MLA-NVIDIA_H200-heads_16-kv_auto-graph")
    engine = table.file.header.engine.model_copy(update={"max_model_len": 16384})
    longer = table.file.header.model_copy(update={"engine": engine})
    other = dataclasses.replace(table, file=dataclasses.replace(table.file, header=longer))
    (figure,) = overview(Material([table, other])).figures
    names = {trace["y"][0] for trace in figure.traces}
    own = table.file.header.engine.max_model_len // 1024
    assert names == {f"TRITON_MLA 16 graph, H200, up to {n}k" for n in (own, 16)}
