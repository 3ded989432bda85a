"""Confirms what a pattern found: checksums, number plans, allocation rules. Each takes the plain text and a match.

A check that says no must be sure; what it cannot tell counts as found.
"""

import ipaddress
import re
import sys
from collections.abc import Callable
from typing import Final

import phonenumbers
from stdnum import luhn
from stdnum.iso7064 import mod_97_10

# Says whether the match from `start` to `end` of `text` is an identifier.
Check = Callable[[bytes, int, int], bool]

_NOT_DIGIT = re.compile(rb"[^0-9]+")
_NOT_WORD = re.compile(rb"[^0-9A-Za-z]+")

# File names such as icon@2x.png look like addresses.
_NO_DOMAIN: Final = (b".png", b".jpg", b".jpeg", b".gif", b".svg", b".webp", b".css", b".js", b".html")

# Countries whose numbers are written with a leading 0 and without a country code.
_REGIONS: Final = ("GB", "DE", "FR", "NL", "BE", "CH", "AT", "AU", "IN", "JP", "IT", "SE")

# By length: SWIFT's IBAN registry, release 101. National check digits inside are not asked, because invented examples
# get them wrong.
_IBAN_COUNTRIES: Final = {
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
_IBAN_LENGTHS: Final = {code: length for length, codes in _IBAN_COUNTRIES.items() for code in codes.split()}
# Prose such as "no 12 of them were" would pass the checksum once in 97 times.
_MIN_IBAN_DIGITS: Final = 8
_IBAN_RUN = re.compile(rb"[^0-9A-Za-z]?(?:[ .-]{0,2}[0-9A-Za-z]){15,34}")

# A postal code of the United States that begins with 0, such as 02110-1301.
_ZIP = re.compile(rb"[0-9]{5}-[0-9]{4}")

# Lengths by the first digits of a card's number (issuer identification number), ISO/IEC 7812 as issuers publish it.
_ISSUERS: Final[tuple[tuple[int, int, tuple[int, ...]], ...]] = (
    (4, 4, (13, 16, 19)),  # Visa
    (51, 55, (16,)),  # Mastercard
    (2221, 2720, (16,)),
    (34, 34, (15,)),  # American Express
    (37, 37, (15,)),
    (6011, 6011, (16, 17, 18, 19)),  # Discover
    (644, 649, (16, 17, 18, 19)),
    (65, 65, (16, 17, 18, 19)),
    (300, 305, (14, 15, 16, 17, 18, 19)),  # Diners Club
    (3095, 3095, (14, 15, 16, 17, 18, 19)),
    (36, 36, (14, 15, 16, 17, 18, 19)),
    (38, 39, (14, 15, 16, 17, 18, 19)),
    (3528, 3589, (16, 17, 18, 19)),  # JCB
    (62, 62, (16, 17, 18, 19)),  # UnionPay
    (2200, 2204, (16, 17, 18, 19)),  # Mir
    (50, 50, (12, 13, 14, 15, 16, 17, 18, 19)),  # Maestro
    (56, 58, (12, 13, 14, 15, 16, 17, 18, 19)),
    (60, 61, (12, 13, 14, 15, 16, 17, 18, 19)),
    (63, 63, (12, 13, 14, 15, 16, 17, 18, 19)),
    (66, 69, (12, 13, 14, 15, 16, 17, 18, 19)),
)
# How numbers of cards are grouped in print; other groupings of digits are taken as separate numbers.
_CARD_GROUPS = re.compile(r"(?:4,){3}[1-4](?:,[1-3])?|4,6,5|4,6,4|(?:1,){11,18}1|(?:2,){6,9}[12]|8,8|6,1[03]")
_CARD_WORD = re.compile(rb"(?i)card|visa|amex|master|maestro|credit|debit|\bpan\b|\bcc\b|karte|carte|tarjeta")
# 3.14159265358979
_DECIMALS = re.compile(rb"[0-9]{1,3}\.[0-9]{10,}$")
_MIN_CARD_DIGITS: Final = 12
_MAX_CARD_DIGITS: Final = 19

_VERSION_BEFORE = re.compile(rb"(?i)(?:\b(?:v|ver|versions?|release|build|rev|revision)[.:=]? ?|(?:[=<>~!]=|[~^]) ?)$")
_AGENT_BEFORE = re.compile(rb"(?:Chrome|Chromium|CriOS|Edg|Edge|OPR|Safari|Firefox|Version|Electron)/$")
_WORD_OR_COLON = re.compile(rb"[0-9A-Za-z_:]")
_INDEX_BEFORE = re.compile(rb"[A-Za-z0-9_\])]\[[^\[\]]*$")

_PLACEHOLDER = re.compile(
    rb"(?i)[*.x_#-]+|\$\{?.*|%[({].*|\{.*|\[.*|\(.*|(?:your|my|the|some|example|new|old|dummy)[_-]?.*|"
    rb"(?:str|string|int|bool|bytes|none|null|nil|true|false|undefined|optional|required|text|hidden|redacted|missing|"
    rb"invalid|wrong|incorrect|expired|empty|reset|changed|must|should|cannot|authentication|encryption|"
    rb"config|settings|input|prompt|user|field|value|type|basic|bearer)\b.*"
)
# A variable, an attribute or a call; a password that is a plain word looks the same, so names count for more.
_CODE = re.compile(rb"(?i)[a-z_][a-z0-9_]*(?:[.\[(].*|_[a-z0-9_]*|.*(?:token|secret|passw|passwd|key).*)")
_CALL = re.compile(rb"(?i)[a-z_][a-z0-9_.]*[\[(].*")
_SECRET_PARTS = re.compile(rb"(?is)(.*?)[\"']?\s*(?::=|=>|=|:(?!//)|\b(?:is|was|ist)\b)([\s:]*)([\"']?)(.*)")
_PASSWORD_NAME = re.compile(rb"(?i)pass(?:word|wd|phrase|code)|pwd|pin|passwort|kennwort|contrase|mot de passe")


def always(_text: bytes, _start: int, _end: int) -> bool:
    """The pattern says enough."""
    return True


def is_email(text: bytes, start: int, end: int) -> bool:
    found = text[start:end].lower()
    # A remote of git is written like an address.
    return not found.endswith(_NO_DOMAIN) and not found.startswith(b"git@")


def is_phone(text: bytes, start: int, end: int) -> bool:
    found = text[start:end]
    digits = _NOT_DIGIT.sub(b"", found).decode()
    if found[:1].isalpha():
        # Announced by a word: which country's it is does not matter.
        return True
    if found.startswith(b"+"):
        return _is_number(f"+{digits}", None)
    if digits.startswith("00"):
        return _is_number(f"+{digits[2:]}", None)
    if digits.startswith("0"):
        if _ZIP.fullmatch(found):
            return False
        return len(digits) >= 9 and any(_is_number(digits, region) for region in _REGIONS)
    return _is_number(digits, "US")


def _is_number(digits: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(digits, region))
    except phonenumbers.NumberParseException:
        return False


def is_iban(text: bytes, start: int, _end: int) -> bool:
    """As long as its country's numbers are, and of the right checksum (ISO 13616, mod 97)."""
    run = _IBAN_RUN.match(text, start)
    compact = _NOT_WORD.sub(b"", run[0] if run else b"").decode().upper()
    number = compact[: _IBAN_LENGTHS.get(compact[:2], 0)]
    if len(number) < _IBAN_LENGTHS.get(compact[:2], sys.maxsize):
        return False
    return sum(map(str.isdigit, number)) >= _MIN_IBAN_DIGITS and mod_97_10.is_valid(number[4:] + number[:4])


def is_card(text: bytes, start: int, end: int) -> bool:
    """Groups of digits in this run that together have an issuer, its length and the check digit (Luhn)."""
    run = text[start:end]
    if text[start - 1 : start].isalpha() or text[end : end + 1].isalpha():
        # Part of a name or a hexadecimal number. (At the start of the text the first slice is empty.)
        return False
    is_announced = _CARD_WORD.search(text, max(0, start - 40), start) is not None
    if _DECIMALS.match(run):
        return False
    groups = [group.decode() for group in _NOT_DIGIT.split(run) if group]
    return any(
        _begins_with_card(groups[first : first + _MAX_CARD_DIGITS + 1], is_announced)
        for first in range(len(groups))
        # A row of single digits is one number as a whole or none: it has no other beginning.
        if first == 0 or len(groups[first]) > 1 or len(groups[first - 1]) > 1
    )


def _begins_with_card(groups: list[str], is_announced: bool) -> bool:
    digits, sizes = "", ""
    for count, group in enumerate(groups, start=1):
        digits += group
        sizes += f",{len(group)}" if sizes else str(len(group))
        if len(digits) > _MAX_CARD_DIGITS:
            return False
        if len(digits) < _MIN_CARD_DIGITS or not _has_issuer(digits) or not luhn.is_valid(digits):
            continue
        if len(group) == 1 == len("".join(groups[count : count + 1])):
            # Nor has it another end.
            continue
        if is_announced or count == 1 or _CARD_GROUPS.fullmatch(sizes):
            return True
    return False


def _has_issuer(number: str) -> bool:
    return any(
        len(number) in lengths and low <= int(number[: len(str(low))]) <= high for low, high, lengths in _ISSUERS
    )


def is_ssn(text: bytes, start: int, end: int) -> bool:
    """Issued numbers only: no area 000, 666 or from 900, no group 00, no serial 0000 (SSA, since 2011)."""
    digits = _NOT_DIGIT.sub(b"", text[start:end]).decode()[-9:]
    return digits[:3] not in ("000", "666") and digits[3:5] != "00" and digits[5:] != "0000" and digits < "9"


def is_ipv4(text: bytes, start: int, end: int) -> bool:
    """Not part of a longer dotted number, nor a version."""
    before, after = text[max(0, start - 20) : start], text[end : end + 2]
    if before.endswith((b".", b"-")) and len(before) > 1 and before[-2:-1].isdigit():
        return False
    if after[:1] == b"." and after[1:].isdigit():
        return False
    return not (_VERSION_BEFORE.search(before) or _AGENT_BEFORE.search(before))


def is_ipv6(text: bytes, start: int, end: int) -> bool:
    """An address by the rules of RFC 4291, not a name with colons, a time or a slice."""
    found = text[start:end]
    if text[max(0, start - 1) : start].isalnum() or (text[start - 1 : start] == b"_" and start > 0):
        return False
    if text[end : end + 1].isalnum() or text[end : end + 1] in (b"_", b":"):
        return False
    try:
        ipaddress.IPv6Address(found.decode())
    except ValueError:
        return False
    is_name_like = found.count(b":") == 2 and not any(char in b"0123456789" for char in found)
    is_slice = len(found) <= 9 and _INDEX_BEFORE.search(text[max(0, start - 40) : start]) is not None
    return not (is_name_like or is_slice)


def is_secret(text: bytes, start: int, end: int) -> bool:
    """A value that is neither a placeholder, a variable nor a word of prose.

    What is named a token or a key must look random, since most are variables; a password need not.
    """
    parts = _SECRET_PARTS.fullmatch(text[start:end])
    if parts is None:
        # Both patterns have these parts; if they ever change, nothing may slip through.
        return True
    name, quote, value = parts[1], parts[3], parts[4].strip(b"\"'`.,;)")
    if len(value) < 4 or _PLACEHOLDER.fullmatch(value):
        return False
    if not _PASSWORD_NAME.search(name):
        return len(value) >= 8 and _has_letters_and_digits(value) and (bool(quote) or not _CALL.fullmatch(value))
    if value.isalpha() and not quote:
        # password=swordfish is one; "password: remember" and "the password is good" are prose.
        return b"=" in text[start:end] and not _CODE.fullmatch(value) and not parts[2]
    return bool(quote) or not _CODE.fullmatch(value)


def _has_letters_and_digits(value: bytes) -> bool:
    return any(chr(char).isalpha() for char in value) and any(char in b"0123456789" for char in value)
