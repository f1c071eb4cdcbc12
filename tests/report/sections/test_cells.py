"""Where the batches of an entry stand in a heat map."""

from mla_tune.report.sections.cells import Kind, cells_of, placed_cells
from report_material import shipped


def cells(name, kind):
    (table,) = shipped(name)
    found = [cell for entry in table.file.entries for cell in cells_of(entry)]
    return [cell for cell in found if cell.kind is kind]


def test_lengths_that_few_sizes_have_share_the_last_column():
    decodes = cells("max_model_len_131072/TRITON_MLA-NVIDIA_H100_80GB_HBM3", Kind.DECODE)
    assert len({cell.shape.max_kv_len for cell in decodes}) > 20
    names = {name for _, (_, name) in placed_cells(decodes)}
    assert {"1k", "4k", "longest"} <= names
    assert len(names) < 9


def test_ragged_batches_stand_by_their_mean():
    ragged = cells("TRITON_MLA-NVIDIA_H100_80GB_HBM3-heads_16", Kind.RAGGED)
    assert {name for _, (_, name) in placed_cells(ragged)} == {"1k", "4k", "16k", "one long"}


def test_an_entry_without_cases_has_those_of_its_key():
    kept = cells("FLASHMLA-NVIDIA_H200-heads_16-kv_auto-graph", Kind.DECODE)
    assert {cell.told_gain for cell in kept} == {"default kept"}
    assert {cell.shape.max_kv_len for cell in kept} == {1024, 4096, 16384}
