"""The documentation as a site, built as `python scripts/dev.py docs` does."""

import html
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import click
import markdown
import pytest
from markdown_it import MarkdownIt

import mla_tune
from mla_tune.cli.commands import command
from test_docs import DOCUMENTS

ROOT = Path(__file__).parents[1]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
# What another site may be asked for; links that a reader follows are not.
LOADED = re.compile(r'<(?:script|link|img|source|iframe)\b[^>]*(?:src|srcset|href)="(?:https?:)?//')


def build(config, *options):
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--config-file", config, *options],
        capture_output=True,
        text=True,
        check=False,
        env={"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")},
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", "--site-dir", folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return folder


def commands(group=command, path="mla-tune"):
    yield path, group
    for name, each in getattr(group, "commands", {}).items():
        yield from commands(each, f"{path} {name}")


def sections(page):
    """The sections of a page, by their titles; tags are gone."""
    parts = re.split(r"<h2 id=.*?>(.*?)<a", page.read_text(encoding="utf-8"))[1:]
    texts = (html.unescape(re.sub(r"<[^>]+>", " ", text)) for text in parts[1::2])
    return dict(zip(parts[::2], texts, strict=True))


def test_every_command_and_option_is_in_the_reference(site):
    found = sections(site / "command-line.html")
    assert list(found) == [path for path, _ in sorted(commands())]
    for path, each in commands():
        # Options of a run without a command are listed with `tune`.
        text = found[path] + found["mla-tune tune"] if each is command else found[path]
        options = [one for one in each.params if isinstance(one, click.Option)]
        names = {name for one in options for name in (*one.opts, *one.secondary_opts)}
        assert names | {"-h", "--help"} <= set(re.split(r"[\s,/]+", text)), path


def test_what_the_package_exports_is_in_the_reference(site):
    page = (site / "python.html").read_text(encoding="utf-8")
    headings = set(re.findall(r'<h3 id="([\w.]+)"', page))
    names = {name.rpartition(".")[2] for name in headings}
    assert set(mla_tune.__all__) - {"__version__"} <= names


def test_a_page_loads_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert LOADED.findall(text) == []
        # The theme would fetch what draws it.
        assert 'class="mermaid"' not in text


def test_the_layers_stand_in_the_place_of_a_picture(site):
    page = (site / "architecture.html").read_text(encoding="utf-8")
    boxes = re.findall(r"^    \w+\[\"(.*?)\"\]", ARCHITECTURE.read_text("utf-8"), re.MULTILINE)
    layers = re.findall(r"<li(?: class=\"engine\")?><span>(.*?)</span>", page)
    assert [re.findall(r"<code>(.*?)</code>", layer) for layer in layers] == [
        box.split("<br/>") for box in boxes
    ]


@pytest.mark.parametrize("word", ["plan", "entries"])
def test_the_landing_page_links_a_word_of_ours_where_it_first_stands(site, word):
    page = (site / "index.html").read_text(encoding="utf-8")
    prose = re.sub(r"<(pre|code).*?</\1>", "", page[page.index("<article") :], flags=re.DOTALL)
    linked = re.sub(r'<a href="glossary\.html#[\w-]+">(.*?)</a>', r"{\1}", prose)
    first = re.search(rf".\b{word}\b.", re.sub(r"<.*?>", "", linked, flags=re.DOTALL))
    assert first is not None
    assert first[0] == f"{{{word}}}"


def test_every_page_can_be_reached(site):
    navigation = (site / "index.html").read_text(encoding="utf-8")
    for document in (ROOT / "docs").glob("*.md"):
        assert f'href="{document.stem}.html"' in navigation, document.name


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[gone](gone.md)", "gone.md"),
        ("[gone](index.md#gone)", "#gone"),
        ("![gone](gone.png)", "gone.png"),
        ("[absolute](/index.html)", "/index.html"),
    ],
)
def test_a_link_that_leads_nowhere_fails_the_build(tmp_path, text, told):
    assert_refused(tmp_path, {"index.md": f"# A page\n\n{text}\n"}, told)


def test_a_page_outside_of_the_navigation_fails_the_build(tmp_path):
    assert_refused(tmp_path, {"index.md": "# A page\n", "lost.md": "# Another\n"}, "lost.md")


def assert_refused(tmp_path, pages, told):
    """Build ``pages`` with the site's strictness and the plain theme."""
    settings = ROOT.joinpath("mkdocs.yml").read_text(encoding="utf-8")
    (strictness,) = re.findall(r"^strict: .*?\n\n", settings, re.MULTILINE | re.DOTALL)
    (tmp_path / "docs").mkdir()
    for name, text in pages.items():
        (tmp_path / "docs" / name).write_text(text, encoding="utf-8")
    config = tmp_path / "mkdocs.yml"
    nav = "nav: [index.md]\n"
    config.write_text(f"site_name: x\nplugins: []\n{nav}{strictness}", encoding="utf-8")
    done = build(config)
    assert done.returncode == 1
    assert told in done.stderr


def parts(page):
    """How many there are of each element; a block of code counts as one."""
    page = re.sub(r"<pre.*?</pre>", "<pre>", page, flags=re.DOTALL)
    return Counter(re.findall(r"<(ul|ol|li|pre|table|tr|td|th|h\d|code|a|em|strong|img)\b", page))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_page_is_the_same_on_github(document):
    """MkDocs reads another Markdown than GitHub, in which lists and tables begin otherwise."""
    text = document.read_text(encoding="utf-8")
    extensions = ["pymdownx.highlight", "pymdownx.superfences", "sane_lists", "tables"]
    on_github = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert parts(markdown.markdown(text, extensions=extensions)) == parts(on_github)
