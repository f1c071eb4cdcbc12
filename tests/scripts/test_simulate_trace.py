from pathlib import Path

import numpy as np
import pytest

from make_trace import Traffic, trace_lines
from mla_tune.measuring.recording import Recording
from mla_tune.traffic.batching import SimulatedEngine
from simulate_trace import Latency, default_splits, rows

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "data" / "h200_16_heads.jsonl.gz"
SHIPPED = [
    ROOT / "tuned_configs" / f"TRITON_MLA-NVIDIA_H200-heads_16-kv_auto-{mode}-vllm_0.26.0.yaml"
    for mode in ("eager", "graph")
]


@pytest.fixture(scope="module")
def recording():
    return Recording.load(RECORDED)


def test_the_splits_untuned_are_vllms():
    found = [default_splits(kv_len) for kv_len in (1, 1024, 4096, 5000, 16384, 131072, 2**20)]
    assert found == [1, 2, 8, 16, 32, 256, 256]


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_uniform_step_takes_what_the_model_says(recording, mode):
    latency = Latency.of(recording, mode)
    for batch, kv_len, splits in ((8, 4096, 8), (64, 1024, 4), (40, 16384, 64)):
        modelled_us = latency.model.latency_us(batch, kv_len, splits)
        found_us = latency.us([kv_len] * batch, splits)
        # A last wave that is not full is as slow as the others in the model.
        assert found_us == pytest.approx(modelled_us, rel=0.1)


def test_one_long_request_costs_less_than_all_as_long(recording):
    latency = Latency.of(recording, "graph")
    lens = [16384, *[1024] * 63]
    for splits in (1, 8, 64):
        assert latency.us([1240] * 64, splits) < latency.us(lens, splits)
        assert latency.us(lens, splits) < latency.us([16384] * 64, splits)


def test_steps_are_counted_in_both_modes(tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("\n".join(trace_lines(Traffic(requests=60), seed=0)))
    head, *_, eager, graph = rows(trace, SHIPPED, [RECORDED], SimulatedEngine(), timed=20)
    assert "skewed" in head
    assert eager.startswith("| NVIDIA H200, eager |")
    assert graph.startswith("| NVIDIA H200, graph |")
    gains = [float(row.split("|")[6].strip("× ")) for row in (eager, graph)]
    assert gains[1] > gains[0] >= 1.0
    shares = [[float(cell.strip("% ")) for cell in row.split("|")[2:6]] for row in (eager, graph)]
    for answered, _, skewed, miss in shares:
        assert answered + skewed + miss == pytest.approx(100, abs=2)
    assert np.isclose(shares[1][2], 0)
