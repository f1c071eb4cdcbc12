"""The tables that the recording of an H200 ends in are those that commit 0758d19 made of it."""

import hashlib
from pathlib import Path

import mla_tune

RECORDED = Path(__file__).parents[1] / "data" / "h200_16_heads.jsonl.gz"
# Of each table's text, by `digest`.
MADE_BEFORE = {
    "FLASHMLA-NVIDIA_H200-heads_16-kv_auto-eager": "864895003513bb98",
    "FLASHMLA-NVIDIA_H200-heads_16-kv_auto-graph": "31171b16a50f83a2",
    "FLASH_ATTN_MLA-NVIDIA_H200-heads_16-kv_auto-eager": "9b35f25515207bed",
    "FLASH_ATTN_MLA-NVIDIA_H200-heads_16-kv_auto-graph": "e4c98341bb460a5f",
    "TRITON_MLA-NVIDIA_H200-heads_16-kv_auto-eager": "3fc3ba61a4f819d1",
    "TRITON_MLA-NVIDIA_H200-heads_16-kv_auto-graph": "f5695beaeb9183db",
}


def digest(text: str) -> str:
    """Of a table without what schema version 3 added: its number, and the model of the header."""
    added = ("schema_version: ", "between: ")
    kept = [line for line in text.splitlines(keepends=True) if not line.startswith(added)]
    return hashlib.sha256("".join(kept).encode()).hexdigest()[:16]


def test_the_tables_of_a_recording_are_byte_for_byte_as_before(tmp_path: Path) -> None:
    mla_tune.tune(
        backends="RECORDED",
        recording=RECORDED,
        out=tmp_path / "tables",
        study_dir=tmp_path / "study",
        # Enough for all rounds on any machine: time would end a confirmation early.
        confirm_seconds=600.0,
    )
    tables = {
        path.name.removesuffix("-vllm_0.26.0.yaml"): digest(path.read_text())
        for path in (tmp_path / "tables").glob("*.yaml")
    }
    assert tables == MADE_BEFORE
