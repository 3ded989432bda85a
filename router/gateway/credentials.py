"""Who asks: the tenant follows from the key and from nothing else."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from pathlib import Path

from router.errors import ConfigError, UnauthorizedError

DEFAULT_TENANT = "default"
MAX_KEY_CHARS = 512
_TENANT = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Credentials:
    """The keys of all tenants, as SHA-256 digests; empty means that no key is asked for."""

    def __init__(self, tenants: Sequence[tuple[str, bytes]] = ()) -> None:
        self._tenants = tuple(tenants)

    @classmethod
    def load(cls, path: Path) -> "Credentials":
        """Lines `tenant sha256-of-the-key-in-hex`; `#` begins a comment. Raises ConfigError naming file and line."""
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"--api-keys {path}: cannot be read: {type(exc).__name__}") from exc
        tenants = [_entry(line, f"--api-keys {path}, line {number}") for number, line in enumerate(lines, 1)]
        known = [entry for entry in tenants if entry is not None]
        if not known:
            raise ConfigError(f"--api-keys {path}: holds no key, so nobody could be served")
        return cls(known)

    def tenant(self, authorization: Sequence[str]) -> str:
        """The tenant of the values of a request's `authorization` header. Raises UnauthorizedError.

        Takes the same time whichever key it is, and whether it is one.
        """
        if not self._tenants:
            return DEFAULT_TENANT
        # The bytes as they came: header values are read as Latin-1.
        digest = hashlib.sha256(_bearer(authorization).encode("latin-1", "replace")).digest()
        matches = [tenant for tenant, known in self._tenants if hmac.compare_digest(digest, known)]
        if not matches:
            raise UnauthorizedError("the API key is not known here")
        return matches[0]


def _bearer(authorization: Sequence[str]) -> str:
    if len(authorization) != 1:
        what = "missing" if not authorization else "given twice"
        raise UnauthorizedError(f"the API key is {what}: send `authorization: Bearer KEY` once")
    scheme, _, key = authorization[0].partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key or len(key) > MAX_KEY_CHARS:
        raise UnauthorizedError("the authorization is not of the form `Bearer KEY`")
    return key


def _entry(line: str, where: str) -> tuple[str, bytes] | None:
    """None for an empty line. The error does not repeat the line: it might hold a key in clear."""
    words = line.partition("#")[0].split()
    if not words:
        return None
    if len(words) != 2 or not _TENANT.fullmatch(words[0]) or not _DIGEST.fullmatch(words[1].lower()):
        raise ConfigError(f"{where}: must be `tenant sha256-of-the-key`, such as `clinic 5e88…` (64 hex digits)")
    return words[0], bytes.fromhex(words[1])
