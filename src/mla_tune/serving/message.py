"""What two processes of a start say to each other: dataclasses as JSON."""

__all__ = ["Message"]

from typing import Self

from pydantic import TypeAdapter


class Message:
    """The base of a dataclass that goes to another process, or into the cache."""

    def as_json(self) -> str:
        """The text that `from_json` reads."""
        text: bytes = TypeAdapter(type(self)).dump_json(self)
        return text.decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `as_json` wrote; ValueError on anything else."""
        found: Self = TypeAdapter(cls).validate_json(text)
        return found
