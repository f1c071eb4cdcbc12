"""What the tests of the report are made from."""

import os
from pathlib import Path

import pytest

from mla_tune.catalogue.found import FoundTable, found_tables
from mla_tune.report.figure import facets
from mla_tune.report.material import Material

ROOT = Path(__file__).parents[1]
CHROMIUM = Path("/usr/bin/chromium")
OF = facets("NVIDIA H100 80GB HBM3", "FLASH_ATTN_MLA", 16, "eager", "auto")


def shipped(name: str) -> list[FoundTable]:
    """The shipped tables whose file's name begins so."""
    found, _ = found_tables(sorted((ROOT / "tuned_configs").glob(f"{name}*")))
    return found


def material(name: str, **more) -> Material:
    return Material(shipped(name), **more)


def chromium() -> Path:
    """The browser. Without it the test is skipped; in CI, which installs it, it fails."""
    if not CHROMIUM.exists():
        missing = f"{CHROMIUM} is not there: Debian's package chromium has it"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return CHROMIUM
