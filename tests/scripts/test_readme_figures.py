import re
import shutil
import tomllib
from pathlib import Path

import click
import pytest

from figure_blocks import behind
from figure_material import Material
from gains_picture import CREATOR, Curve, picture, same_picture
from mla_tune.cli.serve import serve
from readme_figures import PICTURE, main, renewed, stale_parts

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def material():
    return Material()


@pytest.fixture
def checkout(tmp_path):
    """The README and the picture alone."""
    (tmp_path / PICTURE).parent.mkdir()
    for name in ("README.md", PICTURE):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_the_documents_hold_the_figures_of_the_shipped_tables(capsys):
    assert main(["--check"]) == 0, capsys.readouterr().out


def plant(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_wrong_figure_is_found_and_named(checkout, material):
    plant(checkout / "README.md", "× as fast with 16", "1× as fast with 16")
    plant(checkout / PICTURE, "stroke-width", "stroke-length")
    wrong = ["README.md: picture", str(PICTURE)]
    assert list(stale_parts(checkout, material, write=False)) == wrong
    assert list(stale_parts(checkout, material, write=True)) == wrong
    assert list(stale_parts(checkout, material, write=False)) == []
    for name in ("README.md", PICTURE):
        assert (checkout / name).read_bytes() == (ROOT / name).read_bytes()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<!-- figures: mood -->\n<!-- /figures -->", "no block is named mood; there are: picture"),
        ("<!-- figures: picture -->\n", "ends with <!-- /figures -->"),
        ("<!-- figures:picture -->\n<!-- /figures -->", "ends with <!-- /figures -->"),
    ],
)
def test_a_block_that_cannot_be_written_is_refused(text, says, material):
    with pytest.raises(SystemExit, match=says):
        renewed(text, material)


def test_another_release_of_matplotlib_draws_the_same_figures():
    drawn = picture([Curve(16, (1, 8), (100.0, 200.0), (50.0, 50.0))])
    other = drawn.replace(CREATOR, "Matplotlib 3.0").replace("stroke-width", "stroke-length")
    assert same_picture(drawn, drawn)
    assert same_picture(drawn, other)
    assert not same_picture(drawn, drawn.replace("stroke-width", "stroke-length"))
    assert not same_picture(drawn, other.replace("200.0", "201.0"))
    assert not same_picture(drawn, "")


def test_the_readme_has_the_versions_and_the_default_that_hold():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    least, beyond = re.findall(r"3\.(\d+)", project["requires-python"])
    assert f"Python 3.{least} to 3.{int(beyond) - 1}," in readme
    (releases,) = re.findall(
        r"vLLM ([\d., and]+) are the releases it was",
        (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8"),
    )
    assert f"against vLLM {releases}." in readme
    (tune_for,) = [each for each in serve.params if each.name == "tune_for"]
    assert tune_for.get_default(click.Context(serve)) in {"2m", "120s", 120}
    assert "for two minutes at most" in readme


def test_on_hopper_an_untuned_flash_attn_mla_is_ahead_of_a_tuned_triton_mla(material):
    """What the README says of every decode shape."""
    found = [list(behind(each, "TRITON_MLA", "FLASH_ATTN_MLA")) for each in material.contests]
    assert sum(map(bool, found)) >= 3
    assert min(map(min, filter(None, found))) > 1
