"""The one way out: whoever wants a backend's answer asks here, and the privacy floor has the last word."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence

from router.backends.backend import Backend, Finished, TextDelta
from router.errors import ConfigError
from router.privacy.floor import Floor
from router.privacy.permit import PermitOffice
from router.request import BackendState, GenerationRequest


class EgressGate:
    """Holds all backends; nobody else has a reference to one."""

    def __init__(self, backends: Sequence[Backend], office: PermitOffice) -> None:
        self._backends = {backend.name: backend for backend in backends}
        if len(self._backends) != len(backends):
            raise ConfigError("two backends have the same name")
        self._office = office

    async def start(self) -> None:
        await asyncio.gather(*(backend.start() for backend in self._backends.values()))

    async def close(self) -> None:
        for backend in self._backends.values():
            await backend.close()

    def states(self) -> tuple[BackendState, ...]:
        """As last seen, in configured order."""
        return tuple(backend.state() for backend in self._backends.values())

    def send(
        self, backend_name: str, floor: Floor, request: GenerationRequest, decision_id: str
    ) -> AsyncGenerator[TextDelta | Finished, None]:
        """Mint a permit for the exact bytes, and let the backend redeem it for what it sends.

        Nothing has left before the first item is asked for. Raises: EgressDenied if the floor forbids this backend;
        from the iterator what `Backend.send` raises. Close the iterator to cancel.
        """
        backend = self._backends[backend_name]
        # On machines of the same owner one id runs through all logs; a cloud must not be able to link requests to
        # what callers are told.
        request_id = decision_id if backend.lane == "edge" else secrets.token_hex(16)
        payload = backend.payload(request, request_id)
        permit = self._office.mint(floor, backend.name, backend.reach, decision_id, payload)
        return backend.send(permit, payload)
