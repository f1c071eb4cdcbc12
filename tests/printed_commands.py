"""Commands in documents, and whether their own parsers take them."""

import argparse
import importlib
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import click

from mla_tune.cli.commands import command

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHELL = {"", "bash", "sh", "console", "dockerfile"}
SPAN = re.compile(r"`([^`]+)`")
IN_YAML = re.compile(r"command: \[(mla-tune, [^]]+)\]")
ASSIGNMENT = re.compile(r"\w+=\S*")
PLACEHOLDER = re.compile(r"\[?[A-Z]+\]?…?|…")
"""What a reader puts something else for."""
# Scripts that read their arguments without a parser of their own.
BARE = {
    "bench_commands": lambda arguments, _: all(map(str.isdecimal, arguments)),
    "check_runtime": lambda arguments, script: set(arguments) <= set(script.CHECKS),
    "coverage_document": lambda arguments, _: not arguments,
    "dev": lambda arguments, script: len(arguments) == 1 and arguments[0] in script.COMMANDS,
    "draw_architecture": lambda arguments, _: arguments in ([], ["--check"]),
}


@dataclass(frozen=True)
class Printed:
    """A command line as it is printed.

    Attributes:
        program: ``mla-tune``, or the name of a script.
        is_mention: within a sentence, where required arguments may be missing.
    """

    program: str
    arguments: tuple[str, ...]
    is_mention: bool

    def __str__(self) -> str:
        return shlex.join((self.program, *self.arguments))


def printed_commands(text: str) -> Iterator[Printed]:
    """Commands of mla-tune and of scripts in the fenced blocks of a document and in its prose."""
    for language, block in FENCE.findall(text):
        if language in SHELL:
            for line in block.replace("\\\n", " ").splitlines():
                yield from commands_in(line, is_mention=False)
        for words in IN_YAML.findall(block):
            yield from commands_in(words.replace(", ", " "), is_mention=False)
    for paragraph in FENCE.sub("", text).split("\n\n"):
        for span in SPAN.findall(paragraph):
            yield from commands_in(" ".join(span.split()), is_mention=True)


def commands_in(line: str, *, is_mention: bool) -> Iterator[Printed]:
    """The commands of a shell line, with what is substituted in it."""
    for inner in re.findall(r"\$\(([^)]*)\)", line):
        yield from commands_in(inner, is_mention=is_mention)
    if not re.search(r"mla-tune|scripts/\w+\.py", line):
        return
    words = shlex.shlex(line, posix=True, punctuation_chars="|;&<>")
    words.whitespace_split = True
    try:
        pieces = list(words)
    except ValueError:  # a quote that does not end: what is printed, mostly
        if re.match(r"\s*(\S*/)?mla-tune ", line):
            raise
        return
    for piece in _split(pieces):
        while piece and (ASSIGNMENT.fullmatch(piece[0]) or re.fullmatch(r"[$#]", piece[0])):
            piece.pop(0)
        if piece and piece[0] in {"python", "python3"}:
            piece.pop(0)
        if piece and Path(piece[0]).name == "mla-tune":
            yield Printed("mla-tune", tuple(piece[1:]), is_mention)
        elif piece and re.fullmatch(r"scripts/\w+\.py", piece[0]):
            yield Printed(Path(piece[0]).stem, tuple(piece[1:]), is_mention)


def _split(pieces: list[str]) -> Iterator[list[str]]:
    """The words of each command of a pipe or a list, without redirections."""
    words: list[str] = []
    is_target = False
    for piece in pieces:
        if re.fullmatch(r"[|;&]+", piece):
            yield words
            words = []
        elif re.fullmatch(r"[<>&]+", piece):
            is_target = True
        elif is_target:
            is_target = False
        else:
            words.append(piece)
    yield words


def refusal(printed: Printed) -> str | None:
    """What the command's own parser has against it."""
    check = _refused_by_click if printed.program == "mla-tune" else _refused_by_script
    try:
        return check(printed)
    except click.UsageError as error:
        return error.format_message()
    except _Refused as error:
        return str(error)


def _refused_by_click(printed: Printed) -> str | None:
    current: click.Command = command
    context = click.Context(command, info_name="mla-tune")
    arguments = list(printed.arguments)
    while True:
        options, rest, _ = current.make_parser(context).parse_args(arguments)
        _check_values(
            context, options, is_mention=printed.is_mention or isinstance(current, click.Group)
        )
        if not isinstance(current, click.Group) or not rest:
            break
        name, *arguments = rest
        if name not in current.commands:
            return f"no command {name}"
        current = current.commands[name]
        context = click.Context(current, info_name=name, parent=context)
    extra = [word for word in rest if not PLACEHOLDER.fullmatch(word)]
    return f"unexpected: {' '.join(extra)}" if extra else None


def _check_values(context: click.Context, options: dict, *, is_mention: bool) -> None:
    for parameter in context.command.params:
        value = options.get(parameter.name)
        words = [word for word in _flat(value) if isinstance(word, str)]
        if isinstance(value, bool) or parameter.is_eager:
            continue
        if not words:  # click has several marks for what is missing
            if parameter.required and not is_mention:
                raise click.MissingParameter(ctx=context, param=parameter)
        elif not any(map(PLACEHOLDER.fullmatch, words)):
            parameter.process_value(context, value)


def _flat(value: object) -> Iterator[object]:
    if isinstance(value, list | tuple):
        for each in value:
            yield from _flat(each)
    else:
        yield value


class _Refused(Exception):
    pass


class _Parsed(Exception):
    pass


def _refused_by_script(printed: Printed) -> str | None:
    if printed.is_mention and not printed.arguments:
        return None
    script = importlib.import_module(printed.program)
    if printed.program in BARE:
        is_read = BARE[printed.program](list(printed.arguments), script)
        return None if is_read else "not what the script reads"
    parse = argparse.ArgumentParser.parse_args

    def parse_printed(parser: argparse.ArgumentParser, *_: object) -> None:
        for action in parser._actions:
            action.required = action.required and not printed.is_mention
            action.type = _or_placeholder(action.type)
        parse(parser, printed.arguments)
        raise _Parsed

    def refuse(_parser: argparse.ArgumentParser, message: str) -> None:
        raise _Refused(message)

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", parse_printed),
        mock.patch.object(argparse.ArgumentParser, "error", refuse),
    ):
        try:
            script.main()
        except _Parsed:
            return None
    return "the script has parsed nothing"


def _or_placeholder(read: Callable[[str], Any] | None) -> Callable[[str], Any]:
    """A type of argparse that also takes what stands for a value."""
    return lambda word: word if read is None or PLACEHOLDER.fullmatch(word) else read(word)
