#!/usr/bin/env python3
"""Tune the portable backend for two batch shapes, ask its table, and write the report.

    python examples/from_python.py [FOLDER]

Needs no GPU and no vLLM. Run again, it finds everything decided. The report needs mla-tune[report].
"""

import subprocess
import sys
from pathlib import Path

import mla_tune
from mla_tune.tuning.api import SilentReporter

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "build/from_python")

# A tiny layer, so that it takes seconds; "deepseek-v2-lite" is the name of a real one.
MODEL = {
    "name": "tiny",
    "num_q_heads": 2,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
}
# Two decodes, and speculative decoding of two requests.
SHAPES = {"model": MODEL, "batch_specs": ["2q1s256", "2q4s256"]}


class Told(SilentReporter):
    """Prints each decision when it is made."""

    def decided(self, job, workload, entry):
        print(
            f"{job.setup.backend} {workload}: {entry.plan or 'default'}, {entry.latency_us:.0f} µs"
        )


result = mla_tune.tune(
    SHAPES,
    backends="TORCH_MLA",
    device="cpu",
    out=FOLDER / "tables",
    study_dir=FOLDER / "studies",
    confirm_seconds=0.5,
    processes=1,  # more look at each winner again, and take longer
    reporter=Told(),
)
for failure in result.failures:
    print(f"not tuned: {failure.what}: {failure.error}")

for tuned in result.tables:
    table = mla_tune.Table.load(tuned.path)
    print(table)
    print(table.lookup(batch=2, kv_len=256, query_len=4))
    print(table.lookup(batch=3, kv_len=256))

report = FOLDER / "report.html"
subprocess.run(
    [sys.executable, "-m", "mla_tune", "report", FOLDER / "tables", "--out", report], check=True
)
