"""The vLLM command that a user gives us to start."""

__all__ = ["VllmCommand"]

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from mla_tune.errors import InputError

VALID = "vllm serve MODEL, with vLLM's own arguments after it"
_MODULE = ("-m", "vllm.entrypoints.cli.main")


@dataclass(frozen=True)
class VllmCommand:
    """A command line that starts ``vllm serve``.

    Attributes:
        argv: as it was given, the program first.
        arguments: what comes after ``serve``.
    """

    argv: tuple[str, ...]
    arguments: tuple[str, ...]

    @classmethod
    def of(cls, argv: Sequence[str]) -> "VllmCommand":
        """Read ``vllm serve …``, or ``python -m vllm.entrypoints.cli.main serve …``.

        Raises:
            InputError: it is another command.
        """
        words = tuple(argv)
        start = 1
        if words[1:3] == _MODULE:
            start = 3
        elif not words or PurePath(words[0]).name != "vllm":
            told = shlex.join(words[:3]) or "nothing"
            raise InputError(f"the command after -- is {told:.80}", valid=VALID)
        if words[start : start + 1] != ("serve",):
            told = shlex.join(words[: start + 1])
            raise InputError(f"{told:.80} starts no server", valid=VALID)
        return cls(words, words[start + 1 :])

    def with_options(self, *options: str) -> "VllmCommand":
        """The same command with more of vLLM's options at its end."""
        return VllmCommand((*self.argv, *options), (*self.arguments, *options))

    def __str__(self) -> str:
        return shlex.join(self.argv)
