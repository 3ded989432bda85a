"""The names of prefixes: hashes under a secret key, from which neither a prompt nor a tenant can be told or guessed."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

SECRET_BYTES = 32
SCOPE_BYTES = 16
NAME_BYTES = 32
TOKEN_BYTES = 4


class PrefixKeys:
    """Names under one secret of SECRET_BYTES. Thread-safe.

    `identity` stands for all that a state depends on beside the tokens; only names of prefixes depend on it.
    """

    def __init__(self, secret: bytes, identity: bytes = b"") -> None:
        self._secret = secret
        self._identity = identity

    def scope(self, tenant: str) -> bytes:
        """What stands for a tenant; the empty one is a tenant like any other."""
        return self._hash(b"scope", tenant.encode(), SCOPE_BYTES)

    def names(self, scope: bytes, ids: Sequence[int], lengths: Iterable[int]) -> Iterator[bytes]:
        """The names of the first n ids within a scope, for each n of `lengths`, which must not fall."""
        digest = hashlib.blake2b(self._identity + scope, digest_size=NAME_BYTES, key=self._secret, person=b"prefix")
        tokens = memoryview(np.asarray(ids, "<u4").tobytes())
        done = 0
        for length in lengths:
            digest.update(tokens[TOKEN_BYTES * done : TOKEN_BYTES * length])
            done = length
            yield digest.digest()

    def name(self, scope: bytes, ids: Sequence[int]) -> bytes:
        """The name of all ids."""
        return next(self.names(scope, ids, [len(ids)]))

    def seal(self, content: bytes) -> bytes:
        """A hash that only who has the secret can make."""
        return self._hash(b"seal", content, NAME_BYTES)

    def _hash(self, purpose: bytes, content: bytes, size: int) -> bytes:
        return hashlib.blake2b(content, digest_size=size, key=self._secret, person=purpose).digest()
