"""Many ways to ask the same: templates, politeness, typing errors. Values put into a template are never touched."""

import string
from collections.abc import Sequence

from ops.demo.tasks.draw import Draw

POLITE = ("Please ", "Hi! ", "Hello, ", "Could you help me? ", "Quick question: ", "Hey, ", "Question: ", "One more: ")
THANKS = (" Thanks!", " Thank you.", " please", " Thanks.")

Piece = tuple[str, str | None]  # literal text, and the name of the value behind it


def ask(draw: Draw, templates: Sequence[str], **values: object) -> str:
    """One of the templates filled in, at times politer, in lower case, without its question mark or with a slip."""
    template = draw.one(templates)
    pieces = [(literal, name) for literal, name, _, _ in string.Formatter().parse(template)]
    if draw.chance(0.05):
        pieces = _with_slip(draw, pieces)
    if draw.chance(0.08) and pieces[0][0][1:2].islower():
        literal, name = pieces[0]
        pieces[0] = (literal[0].lower() + literal[1:], name)
    text = "".join(literal + ("" if name is None else str(values[name])) for literal, name in pieces)
    if draw.chance(0.08):
        text = text.removesuffix("?").removesuffix(".")
    if draw.chance(0.1):
        text = draw.one(POLITE) + text
    if draw.chance(0.06):
        text += draw.one(THANKS)
    return text.strip()


def _with_slip(draw: Draw, pieces: list[Piece]) -> list[Piece]:
    """Two letters of a word of a literal part change places, or one is lost."""
    index = draw.number(0, len(pieces) - 1)
    literal, name = pieces[index]
    words = literal.split(" ")
    long = [i for i, word in enumerate(words) if len(word) > 4 and word.isalpha()]
    if not long:
        return pieces
    place = draw.one(long)
    word = words[place]
    at = draw.number(1, len(word) - 3)
    words[place] = word[:at] + (word[at + 1] + word[at] + word[at + 2 :] if draw.chance(0.5) else word[at + 1 :])
    pieces[index] = (" ".join(words), name)
    return pieces
