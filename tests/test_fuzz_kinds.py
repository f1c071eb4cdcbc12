"""Mutants of every kind of input end in success or in an error of ours; seeds are fixed."""

import click
import pytest

from fuzz_kinds import ARGUMENTS, KINDS, read
from fuzzing import mutants
from mla_tune.cli import commands as cli


@pytest.mark.parametrize("name", KINDS)
def test_the_seeds_are_read(name, tmp_path):
    kind = KINDS[name]
    for number, seed in enumerate(kind.seeds):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert read(kind, seed, folder) is None


@pytest.mark.parametrize("name", KINDS)
def test_a_mutant_is_read_or_refused(name, tmp_path):
    kind = KINDS[name]
    for number, mutant in enumerate(mutants(kind, 150)):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            read(kind, mutant, folder)
        except BaseException as error:
            shown = mutant if len(mutant) < 3000 else mutant[:3000] + b"..."
            raise AssertionError(f"{name} {number}: {shown!r}") from error


HOSTILE = (
    *("nan", "-1", str(10**400), "9" * 5000, "", "x" * 5000, "\x1b[/x]", "\udcff", "/dev/full"),
    *(".", "~", "/dev/null"),
)


def options():
    """Each option of each command that takes a value, with arguments that are good without it."""
    good = {line.split()[0]: line.split() for line in ARGUMENTS if line[0] != "-"}
    good |= {line.split()[1]: line.split() for line in ARGUMENTS if line.startswith("shapes ")}
    tune, *_, play = (line.split() for line in ARGUMENTS if line.startswith("--backend"))
    commands = {"": cli.command, **cli.command.commands}
    commands |= commands.pop("shapes").commands
    for name, command in commands.items():
        for option in command.params:
            if isinstance(option, click.Option) and not option.is_flag:
                own = good.get(name) or (play if option.name == "recording" else tune)
                yield pytest.param(own, option.opts[0], id=f"{name} {option.opts[0]}")


@pytest.mark.parametrize(("good", "option"), list(options()))
def test_any_value_of_an_option_is_taken_or_refused(good, option, tmp_path):
    for number, value in enumerate(HOSTILE):
        folder = tmp_path / str(number)
        folder.mkdir()
        lines = "\n".join([*good, option, value, ""])
        try:
            read(KINDS["arguments"], lines.encode("utf-8", "surrogateescape"), folder)
        except BaseException as error:
            raise AssertionError(f"{option} {value[:80]!r}") from error
