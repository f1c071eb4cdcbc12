from coverage_document import DOCUMENT, document, shipped
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.table import Table
from tabled_engine import ENGINE, UNGUARDED, entry, header


def rows(*tables):
    """The rows of the document's sections, without their GPU."""
    text = document(list(tables)).partition("## What the columns say")[2]
    return [line[2:-2].split(" | ")[1:] for line in text.splitlines() if line.startswith("| H200")]


def row(mode, *entries, **changes):
    engine = ENGINE | {"mode": mode} | changes.pop("engine", {})
    (found,) = rows(Table(header(engine=engine, **changes), entries))
    return found


def test_the_document_is_that_of_the_shipped_tables():
    told = "the shipped tables or the models have changed: run python scripts/coverage_document.py"
    assert DOCUMENT.read_text(encoding="utf-8") == document(shipped()), told


def test_a_model_is_linked_where_its_heads_have_a_table():
    text = document([Table(header(), (entry("8q1s1k", UNTUNED),))])
    (line,) = [line for line in text.splitlines() if line.startswith("| kimi-k2,")]
    assert line.endswith("| 64 | 32 | [16](#16-heads-51212864128): H200 | 8 |")
    # A dense table says nothing of a sparse model, nor of other dimensions.
    assert "| deepseek-v3.2, dots3-note | 512/128/64/128, top-k 2048 | 128 | 64 | 32 | 16 |" in text
    assert "| glm-4.7-flash | 512/192/64/256 | 20 | 10 | 5 | – |" in text
    assert "a table answers 16 on H200." in text


def test_a_graphs_plan_acts_where_it_was_compared():
    splits = Plan(num_kv_splits=8)
    found = row(
        "graph",
        entry("q1s1k", splits, holds_to=131072, holds_ragged=False),
        entry("8q1s1k", splits, holds_to=131072),
        entry("64q1s1k", splits, holds_to=40_000),
        entry("32q1s1k", splits, **UNGUARDED),
        entry("16q1s1k", UNTUNED),
        software_digests={"triton_mla.py": "1111"},
    )
    assert found[:2] == ["0.26.0 +", "TRITON_MLA"]
    assert found[3:] == ["graphs", "5", "4", "3", "40000 to 128k (2,560,000 in all)"]
    assert row("graph", entry("8q1s4k", splits, **UNGUARDED))[3:] == ["graphs", "1", "1", "0", "4k"]


def test_a_sparse_plan_acts_where_its_threshold_is_lower():
    own = Plan(reorder_batch_threshold=128)
    found = row(
        "eager",
        entry("8q64s1k", Plan(reorder_batch_threshold=1), default_plan=own, **UNGUARDED),
        entry("8q256s2k", Plan(reorder_batch_threshold=256), default_plan=own, **UNGUARDED),
        backend="FLASHMLA_SPARSE",
        kv_cache_dtype="fp8_ds_mla",
        engine={"index_topk": 2048},
    )
    assert found[1:] == ["FLASHMLA_SPARSE", "fp8_ds_mla", "eager", "2", "2", "1", "1k"]
