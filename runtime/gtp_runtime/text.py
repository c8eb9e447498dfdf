"""Text from elsewhere: what a terminal shows as it is, and what others' errors say in one line. Numbers in words."""

SPACES = "\u3000\u00a0\u200c\u200d"  # wide and fixed spaces, and the joiners that Persian and emoji are written with


def is_text(value: str) -> bool:
    """Whether a terminal shows text as it is: no control characters, nothing that turns the direction of writing."""
    return all(character.isprintable() or character in SPACES for character in value)


def visible(value: str, allowed: str = "\n\t") -> str:
    """Return text whose control characters are spelled out (``\\x1b``), but for those that are allowed."""
    if is_text(value):
        return value
    return "".join(c if is_text(c) or c in allowed else c.encode("unicode_escape").decode() for c in value)


def one_line(error: object, longest: int = 300) -> str:
    """Return what another library says in one line, without control characters and not too long."""
    text = " ".join(visible(str(error)).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def percent(value: "float | None", digits: int = 1) -> str:
    """Return a share as a percentage, a dash where unknown."""
    return "-" if value is None else f"{value:.{digits}%}"


def number(value: "float | None", digits: int = 2) -> str:
    """Return a number, a dash where unknown."""
    return "-" if value is None else f"{value:.{digits}f}"
