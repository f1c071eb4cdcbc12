"""Each place that pins a release of vLLM says what `mla_tune.vllm.compat` does."""

import re
import tomllib
from pathlib import Path

import dev
from mla_tune.vllm.compat import KNOWN, NEWEST, OLDEST

ROOT = Path(__file__).parents[3]


def numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def test_the_extra_asks_for_the_oldest_release_that_is_driven() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pin,) = project["optional-dependencies"]["vllm"]
    assert numbers(pin.removeprefix("vllm>=")) == OLDEST


def test_the_newest_that_is_tested_is_the_newest_that_was_read() -> None:
    assert numbers(dev.NEWEST_VLLM) == NEWEST
    assert f"{'.'.join(map(str, OLDEST))} to {dev.NEWEST_VLLM}" == KNOWN


def test_the_developers_release_is_a_known_one() -> None:
    (pin,) = re.findall(r"^vllm==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert OLDEST <= numbers(pin) <= NEWEST


def test_the_documents_name_the_oldest_and_the_newest() -> None:
    text = (ROOT / "docs" / "deploying.md").read_text()
    (told,) = re.findall(r"vLLM ([\d., and]+) are the releases", " ".join(text.split()))
    named = [numbers(version) for version in re.findall(r"[\d.]+\d", told)]
    assert (named[0], named[-1]) == (OLDEST, NEWEST[:2])
