"""Permits: without one, no byte goes to any backend.

A permit covers the exact bytes of one payload, one backend and one request, for a short time and one use. Only the
office that minted it can redeem it.
"""

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from router.errors import EgressDenied
from router.privacy.floor import Floor
from router.privacy.reach import Reach

# From minting to the first byte: a permit is redeemed where the send begins.
LIFE_S: Final = 30.0

EgressCause = Literal["floor", "forged", "expired", "reused", "wrong_backend", "wrong_payload"]


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to send one payload to one backend once. Worth nothing unless an office minted it."""

    backend: str
    reach: Reach
    request_id: str
    digest: bytes = field(repr=False)
    expires_at: float = field(repr=False)
    nonce: bytes = field(repr=False)
    mac: bytes = field(repr=False)


class PermitOffice:
    """Mints permits and redeems them. Thread-safe; its key lives and dies with the process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, life_s: float = LIFE_S) -> None:
        self._key = secrets.token_bytes(32)
        self._clock = clock
        self._life_s = life_s
        self._lock = threading.Lock()
        # Expiry by nonce, oldest first; gone as soon as the permit was presented.
        self._open: dict[bytes, float] = {}

    def mint(self, floor: Floor, backend_name: str, backend_reach: Reach, request_id: str, payload: bytes) -> Permit:
        """Raises: EgressDenied if the backend lies beyond the floor."""
        if _is_forged(floor, backend_reach):
            raise _denied("forged", "a permit needs a floor and a reach")
        if backend_reach > floor.reach:
            raise _denied("floor", f"backend {backend_name} is {backend_reach.label}, the floor {floor.reach.label}")
        now = self._clock()
        permit = self._signed(backend_name, backend_reach, request_id, _digest(payload), now + self._life_s)
        with self._lock:
            self._forget_expired(now)
            self._open[permit.nonce] = permit.expires_at
        return permit

    def redeem(self, permit: Permit, backend_name: str, payload: bytes) -> None:
        """Use up `permit` for sending `payload` to `backend_name`. Whoever presents one in vain has spent it.

        Raises: EgressDenied; nothing may then be sent.
        """
        if not self._is_minted_here(permit):
            raise _denied("forged", "this permit was not minted here")
        with self._lock:
            expires_at = self._open.pop(permit.nonce, None)
        if self._clock() >= permit.expires_at:
            raise _denied("expired", f"the permit for {permit.backend} is older than {self._life_s:g} s")
        if expires_at is None:
            raise _denied("reused", f"the permit for {permit.backend} was used before")
        if permit.backend != backend_name:
            raise _denied("wrong_backend", f"the permit is for {permit.backend}, not for {backend_name}")
        if permit.digest != _digest(payload):
            raise _denied("wrong_payload", f"the bytes for {backend_name} are not those that were permitted")

    def _is_minted_here(self, permit: object) -> bool:
        return type(permit) is Permit and hmac.compare_digest(permit.mac, self._mac(permit))

    def _signed(self, backend: str, reach: Reach, request_id: str, digest: bytes, expires_at: float) -> Permit:
        unsigned = Permit(backend, reach, request_id, digest, expires_at, secrets.token_bytes(16), b"")
        return Permit(backend, reach, request_id, digest, expires_at, unsigned.nonce, self._mac(unsigned))

    def _mac(self, permit: Permit) -> bytes:
        # repr of a tuple separates its parts unmistakably, whatever they hold.
        covered = (
            permit.backend,
            int(permit.reach),
            permit.request_id,
            permit.digest,
            permit.expires_at,
            permit.nonce,
        )
        return hmac.digest(self._key, repr(covered).encode("utf-8", "surrogatepass"), "sha256")

    def _forget_expired(self, now: float) -> None:
        """Permits that nobody redeemed; those live equally long, so that the oldest stand first."""
        while self._open and next(iter(self._open.values())) <= now:
            del self._open[next(iter(self._open))]


def _is_forged(floor: object, reach: object) -> bool:
    """A subclass could report another reach than its sealed one; a bare number compares with anything."""
    return type(floor) is not Floor or not isinstance(reach, Reach)


def _digest(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest()


def _denied(cause: EgressCause, message: str) -> EgressDenied:
    return EgressDenied(message, cause)
