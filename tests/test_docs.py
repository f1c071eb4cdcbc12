"""What the documents name has to be there."""

import re
from pathlib import Path

import pytest

from printed_commands import commands_in, printed_commands, refusal

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
def test_every_command_is_one(document):
    printed = printed_commands(document.read_text(encoding="utf-8"))
    refused = {str(each): told for each in printed if (told := refusal(each))}
    assert refused == {}


def test_commands_are_found():
    """In fenced blocks, in YAML, in sentences; behind variables, in pipes, over lines."""
    readme, guide = (ROOT / "README.md", ROOT / "docs" / "deploying.md")
    found = [str(each) for each in printed_commands(readme.read_text(encoding="utf-8"))]
    assert "mla-tune tune --shapes examples/graph_all_sizes.yaml --out tables" in found
    assert "dev quickstart" in found
    found = [str(each) for each in printed_commands(guide.read_text(encoding="utf-8"))]
    assert "mla-tune prepare --tune-for 10m --cache /cache -- vllm serve MODEL" in found
    block = "A=1 .venv/bin/mla-tune show a > b  # c\necho | mla-tune tables \\\n  --json\n"
    found = [str(each) for each in printed_commands(f"```\n{block}```\n`mla-tune\ndiff`")]
    assert found == ["mla-tune show a", "mla-tune tables --json", "mla-tune diff"]
    assert list(commands_in("mla-tune: the engine's log", is_mention=False)) == []
    with pytest.raises(ValueError, match="No closing quotation"):
        list(commands_in("mla-tune compare --gpu 'NVIDIA H200", is_mention=False))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("mla-tune shwo tables", "no command shwo"),
        ("mla-tune show", "Missing argument 'TABLE|DIR|bundled...'"),
        ("mla-tune show tables --gpus H100", "--gpus"),
        ("mla-tune compare bundled --mode graf", "'graf' is not one of 'graph', 'eager'"),
        ("mla-tune compare bundled --tp", "requires an argument"),
        ("mla-tune tune --shapes a.yaml --max-tokens 10x", "10x"),
        ("mla-tune tune --shapes a.yaml --device gpu", "gpu"),
        ("mla-tune cache clean --older-than 30y", "'30y' is no time"),
        ("mla-tune backends TRITON_MLA everywhere", "unexpected: TRITON_MLA everywhere"),
        ("mla-tune --out tables show tables --jsn", "--jsn"),
        ("python scripts/dev.py quickstart --fast", "not what the script reads"),
        ("python scripts/readme_figures.py --chek", "unrecognized arguments: --chek"),
        ("scripts/make_trace.py --requests many", "value: 'many'"),
        ("scripts/check_table_everywhere.py --unguarded", "arguments are required"),
    ],
)
def test_a_wrong_command_is_refused(line, told):
    (printed,) = commands_in(line, is_mention=False)
    assert told in (refusal(printed) or "")


@pytest.mark.parametrize(
    "line",
    [
        "mla-tune show",
        "mla-tune serve -- vllm serve …",
        "mla-tune compare TABLE… --model NAME --tp N",
        "scripts/check_table_everywhere.py --unguarded",
        "scripts/make_trace.py --requests N",
    ],
)
def test_a_sentence_may_leave_out_what_a_command_needs(line):
    (printed,) = commands_in(line, is_mention=True)
    assert refusal(printed) is None


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
