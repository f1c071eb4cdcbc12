"""The traffic that a builder of the installed vLLM counts."""

import os
from pathlib import Path
from typing import Any

import pytest

# Triton decides at its import whether it interprets, and vLLM imports it.
os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
pytest.importorskip("vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.usefixtures("a_gpus_worth_of_units")]

from vllm_on_cpu import (  # noqa: E402
    start,
)


def test_served_steps_are_recorded_by_part(
    plugin: Any, eager_table: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mla_tune.traffic.shapes import shapes_from_traffic

    record = tmp_path / "record" / "served.json"
    record.parent.mkdir()
    monkeypatch.setenv("MLA_TUNE_RECORD", str(record))
    plugin(eager_table)
    engine = start()
    for spec in ("2q1s128", "2q1s128", "q100s300_2q1s128", "8q1s1k"):
        engine.builder.build(0, engine.batch(spec))
    engine.deployment.traffic_writer.close()
    text = shapes_from_traffic(record)
    assert "{spec: 2q1s128, weight: 3}" in text
    assert "{spec: q128s256, weight: 1}" in text
    assert text.index("8q1s1k") < text.index("2q1s128")


def test_replayed_steps_are_recorded_as_such(
    plugin: Any, graph_table: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mla_tune.traffic.histogram_file import HistogramFile, histogram_files

    record = tmp_path / "served.json"
    monkeypatch.setenv("MLA_TUNE_RECORD", str(record))
    plugin(graph_table)
    engine = start(captures=(2, 4))
    for spec in ("4q1s128", "2q1s128"):
        engine.builder.build_for_cudagraph_capture(engine.batch(spec, longest=4096))
    for spec in ("2q1s128", "2q1s128", "4q1s256"):
        engine.builder.build(0, engine.batch(spec))
    engine.deployment.traffic_writer.close()
    (file,) = histogram_files(record)
    steps = HistogramFile.load(file).steps
    assert [(step.mode, step.outcome, step.batch, step.count) for step in steps] == [
        ("graph", "hit", 2, 2),
        ("graph", "miss", 4, 1),
    ]
