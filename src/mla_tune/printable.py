"""Text from files, as it may reach a terminal, a log or a shell's comment."""

__all__ = ["printable", "printable_lines"]


def printable(text: str) -> str:
    r"""``text`` on one line, with all that a terminal acts upon escaped as Python writes it.

    That is escape sequences (``\x1b[2J``), line ends, other control characters and the marks
    that turn the direction of writing around.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def printable_lines(text: str) -> str:
    """As `printable`, of a text that has lines of its own."""
    return "\n".join(map(printable, text.split("\n")))
