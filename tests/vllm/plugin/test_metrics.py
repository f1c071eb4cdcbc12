import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mla_tune.vllm.plugin import metrics
from mla_tune.vllm.plugin.metrics import Labels, Metrics, labels_of

prometheus = pytest.importorskip("prometheus_client", reason="comes with vLLM")

# What an engine process does: steps, replays, and an end.
PROCESS = """
import sys
from mla_tune.vllm.plugin.counts import Counts
from mla_tune.vllm.plugin.metrics import Labels, Metrics

rank, engine = int(sys.argv[1]), sys.argv[2]
metrics = Metrics.of_process()
counts = Counts("TRITON_MLA")
metrics.follow(counts, Labels("deepseek-v3", engine, is_first=rank == 0))
for step in range(100):
    counts.step("miss" if step % 10 == 0 else "hit")
tally = counts.tally("hit")
for step in range(1000):
    tally.steps += 1
    if step == 500:
        metrics.write()
counts.verified += 3
counts.not_applied += 1
"""


def run(folder: Path, *arguments: str) -> None:
    variables = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    subprocess.run(
        [sys.executable, "-c", PROCESS, *arguments], env=variables, check=True, timeout=120
    )


def collected(folder: Path) -> dict[tuple[str, ...], float]:
    """What vLLM's /metrics would show: by name and labels in alphabetical order."""
    from prometheus_client import CollectorRegistry, multiprocess

    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, str(folder))
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


def test_the_counters_of_two_processes_add_up_to_their_steps(tmp_path):
    run(tmp_path, "0", "0")
    run(tmp_path, "0", "1")
    found = collected(tmp_path)
    for engine in ("0", "1"):
        of = ("TRITON_MLA", engine, "deepseek-v3")
        steps = ("vllm:mla_tune_steps_total", "TRITON_MLA", engine)
        assert found[*steps, "eager", "deepseek-v3", "hit"] == 90
        assert found[*steps, "eager", "deepseek-v3", "miss"] == 10
        assert found[*steps, "graph", "deepseek-v3", "hit"] == 1000
        assert found["vllm:mla_tune_verified_total", *of] == 3
        assert found["vllm:mla_tune_fallbacks_total", *of] == 0
    steps = [value for key, value in found.items() if key[0] == "vllm:mla_tune_steps_total"]
    assert sum(steps) == 2 * 1100


def test_a_step_of_several_ranks_counts_once_and_what_fails_on_each(tmp_path):
    run(tmp_path, "0", "0")
    run(tmp_path, "1", "0")
    found = collected(tmp_path)
    steps = [value for key, value in found.items() if key[0] == "vllm:mla_tune_steps_total"]
    assert sum(steps) == 1100
    assert found["vllm:mla_tune_not_applied_total", "TRITON_MLA", "0", "deepseek-v3"] == 2


def test_without_a_folder_nothing_is_exported(monkeypatch):
    monkeypatch.delenv(metrics.FOLDER, raising=False)
    assert Metrics.of_process() is None


def test_the_labels_are_vllms_and_the_first_rank_speaks(monkeypatch):
    parallel = SimpleNamespace(
        tensor_parallel_size=4, pipeline_parallel_size=2, data_parallel_rank=1
    )
    model = SimpleNamespace(served_model_name=["deepseek-v3", "another"], model="/models/v3")
    config = SimpleNamespace(parallel_config=parallel, model_config=model)
    for rank, is_first in ((0, True), (7, False), (8, True)):
        monkeypatch.setattr(metrics, "_rank", lambda rank=rank: rank)
        assert labels_of(config) == Labels("deepseek-v3", "1", is_first)
    model.served_model_name = None
    assert labels_of(config).model_name == "/models/v3"
