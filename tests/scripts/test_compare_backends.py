"""What the documents say of the backends beside each other is what the shipped tables hold."""

from pathlib import Path

import pytest

from compare_backends import graph_tables, rows

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("document", ["README.md", "docs/h200.md"])
def test_the_documents_hold_the_figures_of_the_shipped_tables(document):
    text = (ROOT / document).read_text()
    printed = list(rows(graph_tables(ROOT / "tuned_configs", "NVIDIA H200")))
    assert len(printed) > 6
    for row in printed:
        assert row in text


def test_no_document_sends_hopper_users_to_a_backend_that_loses():
    tables = graph_tables(ROOT / "tuned_configs", "NVIDIA H200")
    for heads in (16, 128):
        untuned, tuned = tables["FLASH_ATTN_MLA", heads], tables["TRITON_MLA", heads]
        common = [shape for shape in tuned if shape in untuned]
        assert common
        assert all(tuned[shape].latency_us > untuned[shape].default_us for shape in common)
    readme = (ROOT / "README.md").read_text()
    assert "--attention-backend TRITON_MLA" not in readme
