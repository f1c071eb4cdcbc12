"""The commands and their options as a page, from what each command says of itself with --help."""

from collections.abc import Iterable

import click

TITLE = """\
# The command line

What `mla-tune COMMAND --help` says, of all commands.
"""


class MarkdownFormatter(click.HelpFormatter):
    """Writes Markdown where click writes text for a terminal.

    Args:
        links: anchors of subcommands, by their names.
    """

    def __init__(self, links: dict[str, str]) -> None:
        # Nothing is cut off to fit a line.
        super().__init__(width=10_000)
        self._links = links
        self._heading = ""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:  # noqa: ARG002
        self.write(f"```text\n{prog} {args}\n```\n\n")

    def write_text(self, text: str) -> None:
        for paragraph in text.split("\n\n"):
            # click's mark for text that is not to be wrapped
            body = paragraph.removeprefix("\b\n")
            is_fixed = body != paragraph
            self.write(f"```text\n{_stripped(body)}\n```\n\n" if is_fixed else f"{body}\n\n")

    def write_heading(self, heading: str) -> None:
        self._heading = heading

    def write_dl(
        self,
        rows: Iterable[tuple[str, str]],
        col_max: int = 30,  # noqa: ARG002
        col_spacing: int = 2,  # noqa: ARG002
    ) -> None:
        self.write(f"| {self._heading} | |\n|---|---|\n")
        for name, meaning in rows:
            self.write(f"| {self._named(name)} | {_in_a_cell(meaning)} |\n")
        self.write("\n")

    def _named(self, name: str) -> str:
        if name in self._links:
            return f"[`{name}`](#{self._links[name]})"
        return f'<code class="option">{_in_a_cell(name)}</code>'


def command_reference(command: click.Command, name: str) -> str:
    """A page of ``command``, which users call ``name``, and of all commands below it."""
    return "\n".join([TITLE, *_sections(command, name, None)])


def _sections(command: click.Command, name: str, parent: click.Context | None) -> list[str]:
    context = click.Context(command, info_name=name, parent=parent, **command.context_settings)
    subcommands = command.commands if isinstance(command, click.Group) else {}
    path = context.command_path
    formatter = MarkdownFormatter({each: _anchor(f"{path} {each}") for each in subcommands})
    command.format_help(context, formatter)
    sections = [f"## {path}\n\n{formatter.getvalue()}"]
    for each, subcommand in sorted(subcommands.items()):
        sections += _sections(subcommand, each, context)
    return sections


def _anchor(title: str) -> str:
    return title.replace(" ", "-")


def _stripped(paragraph: str) -> str:
    return "\n".join(line.strip() for line in paragraph.splitlines())


def _in_a_cell(text: str) -> str:
    return text.replace("<", "&lt;").replace("|", "&#124;")
