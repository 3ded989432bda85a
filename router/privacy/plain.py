"""Brings text into the form in which detectors look for identifiers: the many ways to write one thing become one."""

import re
import unicodedata
from typing import Final

# Not visible, but in the way: soft hyphen, zero-width and direction marks, variation selectors, tag characters.
_INVISIBLE_CATEGORIES: Final = ("Cf", "Mn")
# One character can stand for 18; text made of such is made to cost time.
_MAX_GROWTH: Final = 2
_KEPT_IN_MEMORY: Final = 20_000


class _PlainCharacters(dict[int, str]):
    """For `str.translate`: computes a character's plain form when it is first met."""

    def __missing__(self, code_point: int) -> str:
        plain = _plain_character(chr(code_point))
        if len(self) < _KEPT_IN_MEMORY:
            self[code_point] = plain
        return plain


_PLAIN: Final = _PlainCharacters()
_FOREIGN: Final = re.compile(r"[^\x00-\x7f]+")


def plain(text: str) -> str:
    """NFKC; without invisible characters and marks; digits, spaces, dashes and full stops as in ASCII, tabs as spaces.

    Letters of other scripts stay: they could only be guessed. Raises: ValueError if the text grows out of proportion.
    """
    text = text.replace("\t", " ")
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
        return ""
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if category in ("Zs", "Zl", "Zp"):
        return " "
    if category == "Pd" or char == "\N{MINUS SIGN}":
        return "-"
    return "." if char in "\N{IDEOGRAPHIC FULL STOP}\N{KATAKANA MIDDLE DOT}\N{MIDDLE DOT}" else char
