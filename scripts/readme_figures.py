#!/usr/bin/env python3
"""Every figure of the README and of docs/gains.md, from tables and recordings in the repository.

    python scripts/readme_figures.py            write the marked blocks, draw docs/gains.svg
    python scripts/readme_figures.py --check    exit 1 and name each that differs

A block stands between two comments, `figures: NAME` and `/figures`; what it says is a function of
that name in figure_blocks.py. Run it after a table has been added to those that a wheel holds
(pyproject.toml), taken out, or measured anew.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from figure_blocks import BLOCKS
from figure_material import Material
from gains_picture import picture, same_picture

ROOT = Path(__file__).parents[1]
PICTURE = Path("docs", "gains.svg")
BLOCK = re.compile(r"<!-- figures: ([\w-]+) -->\n.*?<!-- /figures -->", re.DOTALL)
MARK = re.compile(r"<!-- /?figures")


def documents(root: Path) -> list[Path]:
    """Where blocks may stand."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def renewed(text: str, material: Material) -> tuple[str, list[str]]:
    """A document with its blocks written anew, and the names of those that changed by it.

    Raises:
        SystemExit: a block that nobody knows, or one that does not end.
    """
    stale = []

    def block(found: re.Match[str]) -> str:
        name = found[1]
        if name not in BLOCKS:
            sys.exit(f"no block is named {name}; there are: {', '.join(BLOCKS)}")
        said = f"<!-- figures: {name} -->\n\n{BLOCKS[name](material)}\n\n<!-- /figures -->"
        if said != found[0]:
            stale.append(name)
        return said

    blocks = len(BLOCK.findall(text))
    if blocks * 2 != len(MARK.findall(text)):
        sys.exit("a block begins with <!-- figures: NAME --> and ends with <!-- /figures -->")
    return BLOCK.sub(block, text), stale


def stale_parts(root: Path, material: Material, *, write: bool) -> Iterator[str]:
    """The blocks and the picture that are not what they would be; written anew if ``write``."""
    for path in documents(root):
        text = path.read_text(encoding="utf-8")
        new, stale = renewed(text, material)
        yield from (f"{path.relative_to(root)}: {name}" for name in stale)
        if write and stale:
            path.write_text(new, encoding="utf-8")
    drawn, shown = picture(material.curves), root / PICTURE
    if not shown.exists() or not same_picture(drawn, shown.read_text(encoding="utf-8")):
        yield str(PICTURE)
        if write:
            shown.write_text(drawn, encoding="utf-8")


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if one differs")
    check = parser.parse_args(arguments).check
    stale = list(stale_parts(root, Material(), write=not check))
    for each in stale:
        print(f"{'stale' if check else 'written'}: {each}")
    if check and stale:
        print("run python scripts/readme_figures.py")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
