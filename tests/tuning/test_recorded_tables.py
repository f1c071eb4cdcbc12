"""The tables that the recording of an H200 ends in are byte for byte those that it ended in before.

A change that makes other tables says here why. Since 0758d19: confirmations in whole blocks of
rounds draw other rounds of the recording, and 3 of 209 plans are other ones, as between two seeds
of the draw. Since screening draws the incumbent's rounds beside a plan's: 4 of 209, three at the
gate and one among ties. Since intervals are of the width that processes differ by: gains of
less than 2 % are no longer published. Since plans leave a confirmation, and screening after one
round: 4 of 209, three at the gate and one among ties. Since a slower case has to be so by an
interval for all cases, other rounds are drawn: 1 of 209, at the gate. Since p-values of 14 to 50
pairs with ties are exact: 1 of 209, at the gate.
"""

import hashlib
from pathlib import Path

import mla_tune

RECORDED = Path(__file__).parents[1] / "data" / "h200_16_heads.jsonl.gz"
# Of each table's text, by `digest`.
MADE_BEFORE = {
    "FLASHMLA-NVIDIA_H200-heads_16-kv_auto-eager": "6176699ec8dd05d2",
    "FLASHMLA-NVIDIA_H200-heads_16-kv_auto-graph": "4254090dac618d76",
    "FLASH_ATTN_MLA-NVIDIA_H200-heads_16-kv_auto-eager": "d1ca42b84e70f531",
    "FLASH_ATTN_MLA-NVIDIA_H200-heads_16-kv_auto-graph": "972bf3d7656dadf9",
    "TRITON_MLA-NVIDIA_H200-heads_16-kv_auto-eager": "38ef1703b97e82cb",
    "TRITON_MLA-NVIDIA_H200-heads_16-kv_auto-graph": "0ad64b3aee74e1f7",
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
