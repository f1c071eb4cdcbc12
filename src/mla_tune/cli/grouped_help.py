"""Help in which the options of a command stand in groups."""

__all__ = ["GroupedCommand"]

from collections.abc import Mapping, Sequence
from typing import Any

import click


class GroupedCommand(click.Command):
    """A command whose help lists options under titles; those of no group come last.

    Args:
        groups: names of parameters by the title that they stand under.
    """

    def __init__(self, *args: Any, groups: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section a group, where click writes one for all."""
        rows = {
            parameter.name: row
            for parameter in self.get_params(ctx)
            if (row := parameter.get_help_record(ctx)) is not None
        }
        sections = {
            title: [rows.pop(name) for name in names] for title, names in self.groups.items()
        }
        for title, section in {**sections, "Other options": list(rows.values())}.items():
            with formatter.section(title):
                formatter.write_dl(section)
