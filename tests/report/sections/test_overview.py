"""What was tuned: a row a table."""

import dataclasses

from mla_tune.report.material import Material
from mla_tune.report.sections.overview import overview
from report_material import shipped


def test_tables_of_one_name_have_rows_of_their_own():
    (table,) = shipped("TRITON_MLA-NVIDIA_H200-heads_16-kv_auto-graph-vllm_0.26")
    header = table.file.header
    longer = header.engine.model_copy(update={"max_model_len": 8192})
    headers = (
        header,
        header.model_copy(update={"software": {"vllm": "0.33.0"}}),
        header.model_copy(update={"engine": longer}),
        header,
    )
    tables = [
        dataclasses.replace(table, file=dataclasses.replace(table.file, header=each))
        for each in headers
    ]
    (figure,) = overview(Material(tables)).figures
    # Plotly draws the first category at the bottom.
    names = [trace["y"][0] for trace in reversed(figure.traces)]
    assert names == [
        "TRITON_MLA 16 graph, H200, vLLM 0.26.0, up to 128k, no. 1",
        "TRITON_MLA 16 graph, H200, vLLM 0.33.0, up to 128k, no. 2",
        "TRITON_MLA 16 graph, H200, vLLM 0.26.0, up to 8k, no. 3",
        "TRITON_MLA 16 graph, H200, vLLM 0.26.0, up to 128k, no. 4",
    ]
    assert len(figure.numbers.rows) == 4


def test_tables_for_other_engines_are_told_apart_by_their_lengths():
    (table,) = shipped("TRITON_MLA-NVIDIA_H200-heads_16-kv_auto-graph-vllm_0.26")
    engine = table.file.header.engine.model_copy(update={"max_model_len": 16384})
    longer = table.file.header.model_copy(update={"engine": engine})
    other = dataclasses.replace(table, file=dataclasses.replace(table.file, header=longer))
    (figure,) = overview(Material([table, other])).figures
    names = {trace["y"][0] for trace in figure.traces}
    own = table.file.header.engine.max_model_len // 1024
    assert names == {f"TRITON_MLA 16 graph, H200, up to {n}k" for n in (own, 16)}
