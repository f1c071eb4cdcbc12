"""What the site has beside the pages of docs/; MkDocs calls the functions below by their names.

README.md is the landing page, CONTRIBUTING.md and CHANGELOG.md are pages too, and one lists the
commands. Links between all of these are those of the checkout, so that they work on GitHub too;
here they are turned to the site's addresses.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from architecture_stack import with_stack
from command_reference import command_reference
from mla_tune.cli.commands import command

ROOT = Path(__file__).resolve().parent.parent

# Documents beside docs/, by the page that each becomes.
DOCUMENTS = {
    "index.md": ROOT / "README.md",
    "contributing.md": ROOT / "CONTRIBUTING.md",
    "changelog.md": ROOT / "CHANGELOG.md",
}
# Beside these there is nothing to navigate to.
_HEADS = dict.fromkeys(("index.md", "changelog.md"), "---\nhide: [navigation]\n---\n")
_PAGES = {path.name: page for page, path in DOCUMENTS.items()}
# Words of ours on the landing page, where nobody has met them, and where the glossary has them.
_WORDS = {"plan": "glossary.md#plans", "entries": "glossary.md#tables"}
# Where a link or a picture leads to, in Markdown or HTML.
_TARGET = re.compile(r'(\]\(|(?:src|srcset|href)=")([^)"#\s]+)')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not stand in docs/."""
    for page, path in DOCUMENTS.items():
        text = with_site_links(path.read_text(encoding="utf-8"))
        if page == "index.md":
            text = with_words(text)
        files.append(File.generated(config, page, content=_HEADS.get(page, "") + text))
    commands = command_reference(command, "mla-tune")
    files.append(File.generated(config, "command-line.md", content=commands))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs gives them by name
    """Turn links out of docs/ to the pages that there are here, and the picture of the layers."""
    return with_stack(with_site_links(markdown))


def with_site_links(markdown: str) -> str:
    """``markdown`` of the checkout with links as between the pages of the site."""
    return _TARGET.sub(lambda match: match[1] + _on_site(match[2]), markdown)


def with_words(markdown: str) -> str:
    """``markdown`` with a link to the glossary where a word of ours stands first."""
    for word, place in _WORDS.items():
        markdown = re.sub(rf"(?<![\w`[-]){word}(?![\w`-])", f"[{word}]({place})", markdown, count=1)
    return markdown


def _on_site(target: str) -> str:
    inside = target.removeprefix("../").removeprefix("docs/")
    return _PAGES.get(inside, inside)
