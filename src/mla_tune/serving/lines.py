"""Errors in a line: what is said before a start stands among vLLM's own log."""

__all__ = ["in_a_line"]

from mla_tune.errors import MlaTuneError


def in_a_line(error: MlaTuneError) -> str:
    """What is wrong, what is valid and what to do, without line ends."""
    return "; ".join(line.strip() for line in str(error).splitlines())
