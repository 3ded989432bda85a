"""Brings text into the form in which detectors look for identifiers: the many ways to write one thing become one."""

import re
import unicodedata
from typing import Final

# Not visible, but in the way: soft hyphen, zero-width and direction marks, variation selectors, keycaps.
_INVISIBLE_CATEGORIES: Final = ("Cc", "Cf", "Me", "Mn")
# One character can stand for 18; text made of such is made to cost time.
_MAX_GROWTH: Final = 2
_KEPT_IN_MEMORY: Final = 20_000
# Stands for what is invisible until it is known what to make of it; occurs in no text then.
_MARK: Final = "\x00"


class _PlainCharacters(dict[int, str]):
    """For `str.translate`: computes a character's plain form when it is first met."""

    def __missing__(self, code_point: int) -> str:
        plain = _plain_character(chr(code_point))
        if len(self) < _KEPT_IN_MEMORY:
            self[code_point] = plain
        return plain


_PLAIN: Final = _PlainCharacters()
_FOREIGN: Final = re.compile(r"[^\x00-\x7f]+")
# All but the tab and the ends of lines and pages.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0e-\x1b\x7f]+")
# Look like spaces, but are letters or symbols: fillers of Hangul, the blank of Braille.
_BLANKS: Final = "\u115f\u1160\u2800\u3164\uffa0"


def forms(text: str) -> tuple[str, ...]:
    """`plain(text)`, and where something invisible was taken out, the same with spaces there: it may split an
    identifier, and it may part one from the letters beside it. Raises: ValueError as `plain`."""
    marked = _marked(text)
    if _MARK not in marked:
        return (marked,)
    return marked.replace(_MARK, ""), marked.replace(_MARK, " ")


def plain(text: str) -> str:
    """NFKC; without invisible and control characters and marks; digits, spaces, dashes and full stops as in ASCII, tabs
    as spaces.

    Letters of other scripts stay: they could only be guessed. Raises: ValueError if the text grows out of proportion.
    """
    return forms(text)[0]


def _marked(text: str) -> str:
    text = _CONTROL.sub(_MARK, text.replace("\t", " "))
    if text.isascii():
        return text
    normal = unicodedata.normalize("NFKC", text)
    if len(normal) > _MAX_GROWTH * len(text) + 100:
        raise ValueError(f"{len(text)} characters stand for {len(normal)}")
    # Only the foreign parts are translated: that is slow, and most text that is not ASCII nearly is.
    return _FOREIGN.sub(lambda part: part[0].translate(_PLAIN), normal)


def _plain_character(char: str) -> str:
    category = unicodedata.category(char)
    if category in _INVISIBLE_CATEGORIES:
        return _MARK
    # Digits of other scripts, and those in black circles, which NFKC leaves.
    digit = unicodedata.digit(char, None)
    if digit is not None:
        return str(digit)
    if category in ("Zs", "Zl", "Zp") or char in _BLANKS:
        return " "
    if category == "Pd" or char == "\N{MINUS SIGN}":
        return "-"
    return "." if char in "\N{IDEOGRAPHIC FULL STOP}\N{KATAKANA MIDDLE DOT}\N{MIDDLE DOT}" else char
