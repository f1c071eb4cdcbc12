#!/usr/bin/env python3
"""Draw what imports what into docs/architecture.md.

    python scripts/draw_architecture.py           write the picture and the table below it
    python scripts/draw_architecture.py --check   fail if they are not as the code is

The boxes are the layers of pyproject.toml, [tool.importlinter]; the arrows are the imports that the
code has, those inside of functions too. An import that other arrows imply is left out: `cli`
imports `shapes`, but so does `tuning`, which `cli` imports too. Single files of one layer share a
box.
"""

import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "architecture.md"
BEGIN = "<!-- drawn by scripts/draw_architecture.py -->\n"
END = "<!-- end of what is drawn -->\n"
PACKAGE = "mla_tune"
PLUGIN = "vllm.plugin"

# The packages and modules that share a box.
Box = tuple[str, ...]


@dataclass(frozen=True)
class Architecture:
    """The boxes of the picture, highest first, each of one or more parts, and what each imports."""

    boxes: tuple[Box, ...]
    imports: Mapping[Box, frozenset[Box]]

    def below(self, box: Box) -> frozenset[Box]:
        """Everything that ``box`` loads, directly or not."""
        found, waiting = set[Box](), [box]
        while waiting:
            new = self.imports[waiting.pop()] - found
            found |= new
            waiting.extend(new)
        return frozenset(found)

    def arrows(self) -> Iterator[tuple[Box, Box]]:
        """The imports that no chain of other imports implies."""
        for box in self.boxes:
            direct = self.imports[box]
            implied = {below for other in direct for below in self.below(other)}
            yield from ((box, other) for other in self.boxes if other in direct - implied)


def read_architecture() -> Architecture:
    """Read the layers and the imports of this checkout."""
    boxes = tuple(box for layer in declared_layers() for box in boxes_of(layer))
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    imports: dict[Box, set[Box]] = {box: set() for box in boxes}
    for module in graph.modules:
        if box := box_of(module, boxes):
            imported = graph.find_modules_directly_imported_by(module)
            imports[box] |= {other for each in imported if (other := box_of(each, boxes))} - {box}
    return Architecture(boxes, {box: frozenset(found) for box, found in imports.items()})


def declared_layers() -> list[tuple[str, ...]]:
    """The layers of pyproject.toml, highest first, each with its packages and modules."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["id"] == "layers")
    return [tuple(part.strip() for part in layer.split("|")) for layer in layers]


def boxes_of(layer: tuple[str, ...]) -> list[Box]:
    """A box for each package of a layer; its single files share one."""
    packages = [part for part in layer if source(part).name == "__init__.py"]
    files = tuple(part for part in layer if part not in packages)
    return [*((part,) for part in packages), *([files] if files else [])]


def box_of(module: str, boxes: tuple[Box, ...]) -> Box | None:
    """The box of ``module``; the empty packages around the parts have none."""
    inside = module.removeprefix(PACKAGE).removeprefix(".") + "."
    return next((box for box in boxes for part in box if inside.startswith(f"{part}.")), None)


def source(part: str) -> Path:
    """The file that holds the docstring of a package or module."""
    place = ROOT / "src" / PACKAGE / part.replace(".", "/")
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def purpose(part: str) -> str:
    """The first sentence of the docstring of a package or module."""
    text = ast.get_docstring(ast.parse(source(part).read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split()).removesuffix(".")


def draw(architecture: Architecture) -> str:
    """A Mermaid flowchart, and a table that says what each part is for."""
    plugin = (PLUGIN,)
    loaded = architecture.below(plugin) | {plugin}
    lines = ["```mermaid", "flowchart TD"]
    for box in architecture.boxes:
        shade = ":::engine" if box in loaded else ""
        lines.append(f'    {node(box)}["{"<br/>".join(box)}"]{shade}')
    lines += [f"    {node(one)} --> {node(other)}" for one, other in architecture.arrows()]
    lines += ["    classDef engine fill:#dbe9f6,stroke:#4a7ba6,color:#10243a", "```", ""]
    lines += ["| part | what it is |", "|---|---|"]
    lines += [f"| `{part}` | {purpose(part)} |" for box in architecture.boxes for part in box]
    return "\n".join(lines) + "\n"


def node(box: Box) -> str:
    return box[0].replace(".", "_")


def with_drawing(document: str, drawing: str) -> str:
    """``document`` with ``drawing`` between its two marks."""
    before, _, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{DOCUMENT} has lost the marks {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}\n{drawing}\n{END}{after}"


def main() -> None:
    old = DOCUMENT.read_text(encoding="utf-8")
    new = with_drawing(old, draw(read_architecture()))
    if sys.argv[1:] == ["--check"]:
        if new != old:
            raise SystemExit("docs/architecture.md: run python scripts/draw_architecture.py")
    elif sys.argv[1:]:
        raise SystemExit(str(__doc__))
    else:
        DOCUMENT.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
