"""What a shell completes beside files, commands and options: names of backends and models."""

__all__ = ["complete_backend", "complete_model"]

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem


def complete_backend(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Backends whose names begin so, in either case."""
    from mla_tune.registry import BACKENDS

    return _beginning(BACKENDS.names, incomplete.upper())


def complete_model(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Models that are known by name."""
    from mla_tune.shapes.presets import PRESETS

    return _beginning(PRESETS, incomplete.lower())


def _beginning(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
