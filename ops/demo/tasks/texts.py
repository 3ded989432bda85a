"""Lists as one text, so that they read as what they hold."""


def listed(text: str) -> tuple[str, ...]:
    """The words of the text."""
    return tuple(text.split())


def lines(text: str) -> tuple[str, ...]:
    """The lines of the text, without the space around them and without empty ones."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())
