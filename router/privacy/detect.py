"""Finds structured identifiers in a request and says their kinds and counts, never their values.

Screened with one pass of an RE2 set; only where a pattern hits, its matches are confirmed by `checks`. Time is linear
in the text, and the slow checks are capped: what is not checked any more counts as found. Names and addresses have
no structure and are not found.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import re2

from router.privacy import checks, patterns
from router.privacy.checks import Check
from router.privacy.plain import forms
from router.request import GenerationRequest, Message

# Longer than any request that the gateway accepts.
MAX_CHARS: Final = 8 << 20

# Identifiers of one pattern that are counted; whether there are more changes nothing.
MAX_COUNT: Final = 100

# The set's automaton; far more than the patterns need, because one that does not fit must not go unnoticed.
_SET_MEMORY_BYTES: Final = 64 << 20


class DetectionError(RuntimeError):
    """The text could not be searched. Whoever catches it must assume the worst."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of identifier. Matches beyond `max_refuted_bytes` of refuted ones count as found, unchecked."""

    name: str
    patterns: tuple[bytes, ...]
    check: Check
    max_refuted_bytes: int = 1 << 17


KINDS: Final = (
    Kind("api_key", patterns.API_KEY, checks.always),
    Kind("email", patterns.EMAIL, checks.is_email),
    Kind("iban", patterns.IBAN, checks.is_iban),
    Kind("ip_address", patterns.IPV4, checks.is_ipv4),
    Kind("ip_address", patterns.IPV6, checks.is_ipv6),
    Kind("password", patterns.PASSWORD, checks.is_secret),
    Kind("password", patterns.CREDENTIALS, checks.always),
    Kind("payment_card", patterns.CARD, checks.is_card, max_refuted_bytes=1 << 14),
    # Up to a millisecond for one number that no country has.
    Kind("phone", patterns.PHONE, checks.is_phone, max_refuted_bytes=1 << 12),
    Kind("private_key", patterns.PRIVATE_KEY, checks.always),
    Kind("us_ssn", patterns.SSN, checks.is_ssn),
)


def scan(request: GenerationRequest) -> Mapping[str, int]:
    """Identifiers in everything that would be sent, by kind; also those that the end of a message or stop text splits.

    Raises: DetectionError, ValueError.
    """
    return _most(find(text) for text in _views(request.messages, request.sampling.stop))


def find(text: str) -> Mapping[str, int]:
    """Identifiers in one text, by kind. Raises: DetectionError, ValueError."""
    if len(text) > MAX_CHARS:
        raise DetectionError(f"{len(text)} characters are too many to search")
    return _most(_find(form.encode()) for form in forms(text))


def _find(raw: bytes) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for kind, finder in _hits(raw):
        if count := _count(kind, finder, raw):
            counts[kind.name] = counts.get(kind.name, 0) + count
    return counts


def _most(views: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    """Views of one text overlap: of each kind the most that one of them shows."""
    most: dict[str, int] = {}
    for counts in views:
        for kind, count in counts.items():
            most[kind] = max(count, most.get(kind, 0))
    return most


def _views(messages: Sequence[Message], stop: Sequence[str]) -> Iterator[str]:
    """The texts to search: each message apart, then all that a reader could put together again."""
    contents = [message.content for message in messages]
    yield "\n".join((*contents, *stop))
    if len(contents) > 1:
        yield "".join(contents)
    if stop:
        # Beside the above: what stands behind a number can hide it.
        yield "".join((*contents, *stop))
    if len(stop) > 1:
        yield "".join(stop)
    roles = {message.role for message in messages}
    for role in sorted(roles) if len(roles) > 1 else ():
        of_role = [message.content for message in messages if message.role == role]
        if len(of_role) > 1:
            yield "".join(of_role)


def _count(kind: Kind, finder: "re2._Regexp", raw: bytes) -> int:
    """Found matches, at most MAX_COUNT."""
    found = refuted_bytes = 0
    for match in finder.finditer(raw):
        start, end = match.span()
        if refuted_bytes + end - start > kind.max_refuted_bytes or kind.check(raw, start, end):
            found += 1
        else:
            refuted_bytes += end - start
        if found == MAX_COUNT:
            break
    return found


def _hits(raw: bytes) -> Iterator[tuple[Kind, "re2._Regexp"]]:
    screen, finders = _compiled()
    hits = screen.Match(raw)
    # The last pattern matches everything: if even that is missing, the automaton has failed without a word.
    if not hits or len(finders) not in hits:
        raise DetectionError("the set of patterns did not run")
    for index in hits:
        if index < len(finders):
            yield finders[index]


@cache
def _compiled() -> tuple["re2.Set", tuple[tuple[Kind, "re2._Regexp"], ...]]:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = _SET_MEMORY_BYTES
    options.log_errors = False
    # A match's extent is asked of the finders only.
    options.never_capture = True
    screen = re2.Set.SearchSet(options)
    finders = []
    for kind in KINDS:
        for pattern in kind.patterns:
            screen.Add(pattern)
            finders.append((kind, re2.compile(pattern, options)))
    screen.Add(b"")
    screen.Compile()
    return screen, tuple(finders)
