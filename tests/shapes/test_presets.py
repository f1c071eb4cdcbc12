from pathlib import Path

import pytest

from mla_tune.shapes import PRESETS, MlaDimensions
from mla_tune.shapes.presets import SPARSE_PRESETS, preset_name


@pytest.mark.parametrize(
    ("name", "dimensions"),
    [
        ("deepseek-v2-lite", (16, 512, 128, 64, 128)),
        ("deepseek-v3", (128, 512, 128, 64, 128)),
        ("kimi-k2", (64, 512, 128, 64, 128)),
        ("kimi-k3", (96, 512, 128, 64, 128)),
        ("kimi-linear", (32, 512, 128, 64, 128)),
        ("glm-4.7-flash", (20, 512, 192, 64, 256)),
        ("glm-5", (64, 512, 192, 64, 256)),
        ("glm-5.3-flash", (64, 512, 256, 0, 256)),
        ("mistral-small-4", (32, 256, 64, 64, 128)),
        ("minicpm3", (40, 256, 64, 32, 64)),
    ],
)
def test_presets_are_the_published_dimensions(name, dimensions):
    assert PRESETS[name] == MlaDimensions(*dimensions)


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("deepseek-ai/DeepSeek-V3-0324", "deepseek-v3"),
        ("deepseek-ai/DeepSeek-V3.2-Exp", "deepseek-v3.2"),
        ("deepseek-ai/DeepSeek-V2-Lite-Chat", "deepseek-v2-lite"),
        ("moonshotai/Kimi-K2-Instruct-0905", "kimi-k2"),
        ("nvidia/DeepSeek-R1-0528-FP4", "deepseek-r1"),
        ("hy_v4", "hy-v4"),
        ("meituan-longcat/LongCat-Flash-Chat/", "longcat-flash"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", None),
        ("inclusionAI/Ling-1T", None),
        ("deepseek-v3.3", None),
        ("", None),
        ("/", None),
    ],
)
def test_a_checkpoint_s_ending_does_not_count_and_another_model_s_does(name, preset):
    assert preset_name(name) == preset


def test_every_name_is_spelt_as_it_is_looked_up():
    assert all(preset_name(name) == name for name in PRESETS)
    assert SPARSE_PRESETS.keys() <= PRESETS.keys()


def test_the_document_names_every_model():
    text = (Path(__file__).parents[2] / "docs" / "shapes-file.md").read_text(encoding="utf-8")
    assert [name for name in PRESETS if f"`{name}`" not in text] == []
