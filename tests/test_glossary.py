"""The glossary names what is in the code."""

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "mla_tune"
GLOSSARY = ROOT / "docs" / "glossary.md"
ROW = re.compile(r"^\| \*\*(?P<word>[^*]+)\*\* \| (?P<meaning>.+) \| (?:`(?P<name>[\w.]+)`)? ?\|$")


# Words that nobody knows who has not met them here.
OWN_WORDS = ("plans?", "entry|entries", "ties?", "miss|misses", "mixed", "skewed", "capped")
NO_PROSE = re.compile(r"```.*?```|^#.*?$|`[^`\n]+`(?!\]\()", re.DOTALL | re.MULTILINE)


def guides():
    """The pages that the site has under Guides, but for those that begin with the glossary."""
    navigation = re.search(r"^nav:.*?\n\n", (ROOT / "mkdocs.yml").read_text(), re.M | re.S)
    parts = {
        name: page for part in yaml.safe_load(navigation[0])["nav"] for name, page in part.items()
    }
    pages = [ROOT / "docs" / page for each in parts["Guides"] for page in each.values()]
    return [page for page in pages if not page.name.startswith("adding-")]


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


@pytest.mark.parametrize("word", OWN_WORDS)
@pytest.mark.parametrize("guide", guides(), ids=lambda path: path.name)
def test_a_guide_says_what_a_word_of_ours_means_where_it_first_stands(guide, word):
    prose = NO_PROSE.sub("", guide.read_text(encoding="utf-8"))
    first = re.search(rf"\b(?:{word})\b", prose, re.IGNORECASE)
    linked = rf"\[[^]]*\b(?:{word})\b[^]]*\]\(glossary\.md#"
    said = re.search(rf"{linked}|\*(?:{word})\*", prose, re.IGNORECASE)
    if first is not None:
        assert said is not None, first
        assert said.start() < first.start() < said.end(), first
