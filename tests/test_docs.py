"""What the documents name has to be there."""

import re
from pathlib import Path

import pytest

from mla_tune.cli.commands import command

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)


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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_option_exists(document):
    known = {
        name
        for each in (
            command,
            *command.commands.values(),
            *command.commands["shapes"].commands.values(),
        )
        for parameter in each.params
        for name in parameter.opts
    }
    named = {
        option
        for code in code_in(document)
        for line in re.findall(r"(?:^|\n|`)(mla-tune [^`\n]*)", code)
        for option in re.findall(r"(?<=\s)--[a-z-]+", line)
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
