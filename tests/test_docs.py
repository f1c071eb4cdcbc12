"""What the documents name has to be there."""

import re
from pathlib import Path

import pytest

from mla_tune.cli.commands import command

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")


def anchors(document):
    """The names that GitHub gives to a document's headings."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def code_in(document):
    return CODE.findall(document.read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_exists(document):
    named = {
        word
        for code in code_in(document)
        for word in re.findall(r"(?:^|\n|`)mla-tune ([a-z][a-z-]*)", code)
    }
    assert named <= set(command.commands)


def _subcommands(group):
    return getattr(group, "commands", {}).values()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_option_exists(document):
    known = {
        name
        for each in (
            command,
            *command.commands.values(),
            *(sub for group in command.commands.values() for sub in _subcommands(group)),
        )
        for parameter in each.params
        for name in parameter.opts
    }
    named = {
        option
        for code in code_in(document)
        for line in re.findall(r"(?:^|\n|`)(mla-tune [^`\n]*)", code)
        # What follows a lone -- is another program's.
        for option in re.findall(r"(?<=\s)--[a-z-]+", line.partition(" -- ")[0])
    }
    assert named <= known


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_of_the_checkout_exists(document):
    places = "src|tests|scripts|examples|docs|tuned_configs"
    named = {
        path
        for code in code_in(document)
        for path in re.findall(rf"(?<![\w/.-])(?:{places})/[\w./-]*\w", code)
    }
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_module_exists(document):
    """A module may be named from the checkout, or from the package: `tuning/tuner.py`."""
    package = ROOT / "src" / "mla_tune"
    parts = "|".join(path.name for path in package.iterdir() if path.is_dir())
    named = {
        span[1:-1]
        for span in code_in(document)
        if re.fullmatch(rf"`(?:[\w/]+\.py|(?:{parts})/[\w/]*)`", span)
    }
    missing = [path for path in named if not ((ROOT / path).exists() or (package / path).exists())]
    assert sorted(missing) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document):
    for path, anchor in LINK.findall(document.read_text(encoding="utf-8")):
        target = document.parent / path if path else document
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"
