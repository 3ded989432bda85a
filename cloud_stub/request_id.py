"""The id that links one request's lines in all logs."""

import re
import uuid

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def request_id_from(received: str | None) -> str:
    """The caller's id if it is one; anything else could be content, which logs must not hold."""
    if received and _SAFE.fullmatch(received):
        return received
    return uuid.uuid4().hex
