"""Which path is faster from which query length on."""

from mla_tune.report.material import Material
from mla_tune.report.sections.crossover import crossover
from mla_tune.report.tried import recorded
from report_material import ROOT, material


def test_recorded_plans_cross_between_256_and_1024_tokens():
    path = ROOT / "tests/data/h100/extends_flash_attn_mla_grid.jsonl.gz"
    (figure,) = crossover(Material((), tried=recorded(path).tried)).figures
    faster = {(int(row[3].replace("1k", "1024")), row[-1]) for row in figure.numbers.rows}
    assert {path for length, path in faster if length <= 64} == {"decode"}
    assert {path for length, path in faster if length >= 1024} == {"prefill"}


def test_a_table_tells_where_its_plan_takes_the_other_path():
    (figure,) = crossover(material("FLASH_ATTN_MLA-NVIDIA_H200-heads_128-kv_auto-eager")).figures
    assert figure.numbers.rows
    # The default decodes up to 512 tokens; what is published beyond noise is the prefill path.
    assert {row[-1] for row in figure.numbers.rows} == {"prefill"}


def test_a_table_of_decodes_has_none():
    assert crossover(material("TRITON_MLA-NVIDIA_H100_80GB_HBM3-heads_64")).figures == []
