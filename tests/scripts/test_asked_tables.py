from asked_tables import write_tables
from mla_tune.environment import probe
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.shapes import MlaDimensions
from mla_tune.table.loading import load_tables


def test_the_plugin_reads_what_was_asked_for():
    asked = {
        ("TRITON_MLA", "graph"): {"8q1s1k": Plan(num_kv_splits=8), "32q1s1k": UNTUNED},
        ("FLASHMLA", "eager"): {"4q64s1k": Plan(reorder_batch_threshold=64)},
    }
    folder = write_tables(asked, probe("cpu"), MlaDimensions(num_q_heads=16), 32768)
    tables, problems = load_tables(str(folder))
    assert problems == []
    found = {
        (loaded.table.header.backend, loaded.mode): {
            entry.shape: entry.plan for entry in loaded.table.entries
        }
        for loaded in tables
    }
    assert found == asked
