"""The glossary names what is in the code."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "mla_tune"
GLOSSARY = ROOT / "docs" / "glossary.md"
ROW = re.compile(r"^\| \*\*(?P<word>[^*]+)\*\* \| (?P<meaning>.+) \| (?:`(?P<name>[\w.]+)`)? ?\|$")


def rows():
    lines = GLOSSARY.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("| **")]


def source_of(parts):
    """The file of the longest module that ``parts`` begins with, and what is left of them."""
    for count in range(len(parts), 0, -1):
        place = PACKAGE.joinpath(*parts[:count])
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.exists():
                return path, parts[count:]
    return None, parts


def defined(node):
    """The names that a module or class defines or imports, each with its node."""
    found = {}
    for child in node.body:
        match child:
            case ast.ClassDef() | ast.FunctionDef():
                found[child.name] = child
            case ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = child
            case ast.Assign(targets=targets):
                found |= {each.id: child for each in targets if isinstance(each, ast.Name)}
            case ast.ImportFrom(module=str(module), names=names):
                found |= {each.asname or each.name: (module, each.name) for each in names}
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):  # what a package imports when asked
                found |= defined(child)
    return found


def exists(name):
    path, rest = source_of(name.split("."))
    if path is None:
        return False
    node = ast.parse(path.read_text(encoding="utf-8"))
    for part in rest:
        node = defined(node).get(part) if hasattr(node, "body") else None
        if isinstance(node, tuple):
            module, imported = node
            following = rest[rest.index(part) + 1 :]
            return exists(".".join([*module.split(".")[1:], imported, *following]))
        if node is None:
            return False
    return True


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.split("**")[1])
def test_a_word_has_its_place_in_the_code(row):
    match = ROW.match(row)
    assert match is not None, "a row is | **word** | meaning | `name` or nothing |"
    assert match["name"] is None or exists(match["name"]), f"mla_tune.{match['name']} is no more"


def test_a_name_that_is_not_there_is_found_out():
    assert exists("plan.plan.Plan")
    assert exists("shapes.BatchShape.is_uniform")
    assert not exists("plan.plan.Plank")
    assert not exists("shapes.BatchShape.is_unicorn")
    assert not exists("plans")


def test_each_word_stands_once():
    words = [word for row in rows() for word in row.split("**")[1].split(", ")]
    assert sorted(set(words)) == sorted(words)
