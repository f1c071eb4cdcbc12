"""Text from files, as it may reach a terminal, a log or a shell's comment."""

__all__ = ["counted", "counted_are", "printable", "printable_lines"]


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


def counted(number: int, noun: str) -> str:
    """A number and what it counts, in the plural where it has to be.

    Examples:
        >>> counted(1, "batch shape"), counted(2, "batch shape"), counted(0, "entry")
        ('1 batch shape', '2 batch shapes', '0 entries')
    """
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{number} {noun[:-1]}ies"
    return f"{number} {noun}{'es' if noun.endswith(('h', 's', 'x')) else 's'}"


def counted_are(number: int, noun: str) -> str:
    """As `counted`, with the verb.

    Examples:
        >>> counted_are(1, "batch shape"), counted_are(2, "entry")
        ('1 batch shape is', '2 entries are')
    """
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'}"
