from pathlib import Path

import pytest

from fake_device import ENVIRONMENT
from mla_tune.errors import InputError
from mla_tune.files.document import Document
from mla_tune.shapes import MlaDimensions
from mla_tune.table import Header, TableFile
from mla_tune.table.store import TABLE
from mla_tune.table.text import header_text

HEADER = Header.of(ENVIRONMENT, "TORCH_MLA", MlaDimensions(2), "auto", "eager", 4096)


def read_text(text: str) -> TableFile:
    return TableFile.from_document(Document.parse(Path("t.yaml"), text, TABLE))


BAD = {
    "no version": ("backend: X\n", "not an mla-tune table: schema_version is None"),
    "newer": ("schema_version: 99\n", ":1: table of schema version 99"),
    "a word for a version": ("schema_version: new\n", "schema_version is 'new'"),
    "true for a version": ("schema_version: true\n", "schema_version is True"),
    "no header": ("schema_version: 1\nentries: []\n", "backend"),
    "entries are no list": ("schema_version: 1\nentries: {}\n", ":2: entries is {}"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_table_is_refused(tmp_path, case):
    text, says = BAD[case]
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        TableFile.load(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{shape: q1s1024, plan: default, latency_us: 1}", ":10: entries.0.shape"),
        ("{shape: q1s1k, plan: {splits: 1}, latency_us: 1}", ":10: entries.0.plan: unknown knob"),
        ("{shape: q1s1k, plan: default}", ":10: entries.0.latency_us"),
        ("{shape: q1s1k, plan: default, latency_us: 1, bogus: 1}", ":10: entries.0.bogus"),
        ("just words", ":10: entries.0"),
        (
            "{shape: q1s1k, plan: default, latency_us: 1}\n"
            "  - {shape: q1s1k, plan: default, latency_us: 2}",
            ":11: shape q1s1k has two entries",
        ),
    ],
)
def test_a_wrong_entry_is_refused_by_line(row, says):
    with pytest.raises(InputError) as caught:
        read_text(header_text(HEADER) + f"  - {row}\n")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("plan: {num_kv_splits: 1000000000}", "entries.0.plan.num_kv_splits"),
        ("plan: {num_kv_splits: -5}", "entries.0.plan.num_kv_splits"),
        ("plan: {reorder_batch_threshold: 2147483648}", "entries.0.plan.reorder_batch_threshold"),
        ("plan: {prefill_backend: fa3}", "entries.0.plan.prefill_backend"),
        ("plan: default, default_plan: {num_kv_splits: 0}", "entries.0.default_plan.num_kv_splits"),
        ("plan: default, ties: [default, {num_kv_splits: 0}]", "entries.0.ties.1.num_kv_splits"),
    ],
)
def test_a_plan_out_of_bounds_is_refused_by_line(row, says):
    with pytest.raises(InputError) as caught:
        read_text(
            header_text(HEADER) + f"  - {{shape: q1s1k, {row}, latency_us: 1, default_us: 1}}\n"
        )
    assert f":10: {says}: TORCH_MLA cannot have " in caught.value.what
    assert caught.value.valid


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("backend: TORCH_MLA", "backend: TORCH_MLB", ":2: backend: backend 'TORCH_MLB' is not"),
        ("num_q_heads: 2", "num_q_heads: 0", ":4: model: num_q_heads is 0"),
        ("num_q_heads: 2", "num_q_heads: 1000000", ":4: model.num_q_heads"),
        ("num_q_heads: 2, ", "", ":4: model: it gives kv_lora_rank"),
        ("kv_lora_rank: 512", "kv_lora_rank: -512", ":4: model.kv_lora_rank"),
        ("sm_count: 2", "sm_count: 0", ":3: device.sm_count"),
        ("sm_count: 2", "sm_count: 2, compute_capability: ninety", ":3: device.compute_capability"),
        ("max_model_len: 4096", "max_model_len: 0", ":7: engine.max_model_len"),
        ("max_model_len: 4096", f"max_model_len: {2**40}", ":7: engine.max_model_len"),
    ],
)
def test_a_header_of_no_engine_is_refused_by_line(before, after, says):
    text = header_text(HEADER)
    assert before in text
    with pytest.raises(InputError) as caught:
        read_text(text.replace(before, after))
    assert says in caught.value.what
