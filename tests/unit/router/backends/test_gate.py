"""The gate: no permit, no byte; the permit covers the exact bytes."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest

from router.backends.backend import Finished, TextDelta
from router.backends.gate import EgressGate
from router.errors import ConfigError, EgressDenied
from router.privacy.floor import Floor, PrivacyRules, floor_of
from router.privacy.permit import Permit, PermitOffice
from router.privacy.reach import Reach
from router.request import BackendState, GenerationRequest, Lane, Message


@dataclass
class RecordingBackend:
    """Redeems like the real ones; `altered` changes the bytes after the permit was minted."""

    office: PermitOffice
    name: str = "cloud"
    lane: Lane = "cloud"
    reach: Reach = Reach.CLOUD
    altered: bool = False
    request_ids: list[str] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)

    def state(self) -> BackendState:
        return BackendState(self.name, self.lane, self.reach, available=True)

    def payload(self, request: GenerationRequest, request_id: str) -> bytes:
        self.request_ids.append(request_id)
        return request.messages[0].content.encode()

    async def send(self, permit: Permit, payload: bytes) -> AsyncGenerator[TextDelta | Finished, None]:
        payload = payload + b"!" if self.altered else payload
        self.office.redeem(permit, self.name, payload)
        self.sent.append(payload)
        yield Finished("stop", 1, 1)

    async def start(self) -> None: ...

    async def close(self) -> None: ...


def request(*tags: str) -> GenerationRequest:
    return GenerationRequest((Message("user", "hello"),), tags=tags)


def floor(*tags: str) -> Floor:
    return floor_of(request(*tags), PrivacyRules(), lambda _: {})


async def drain(events: AsyncGenerator[TextDelta | Finished, None]) -> None:
    async for _ in events:
        pass


@pytest.fixture
def office() -> PermitOffice:
    return PermitOffice()


@pytest.mark.parametrize(("reach", "tag"), [(Reach.CLOUD, "phi"), (Reach.CLOUD, "internal"), (Reach.FLEET, "phi")])
async def test_backend_beyond_the_floor_gets_no_byte(office: PermitOffice, reach: Reach, tag: str) -> None:
    backend = RecordingBackend(office, reach=reach)
    gate = EgressGate([backend], office)
    with pytest.raises(EgressDenied) as caught:
        gate.send("cloud", floor(tag), request(tag), "id")
    assert caught.value.cause == "floor"
    assert backend.sent == []


@pytest.mark.parametrize(("reach", "tag"), [(Reach.CLOUD, "public"), (Reach.FLEET, "internal"), (Reach.DEVICE, "phi")])
async def test_backend_within_the_floor_gets_the_permitted_bytes(office: PermitOffice, reach: Reach, tag: str) -> None:
    backend = RecordingBackend(office, reach=reach)
    await drain(EgressGate([backend], office).send("cloud", floor(tag), request(tag), "id"))
    assert backend.sent == [b"hello"]


async def test_client_that_would_send_other_bytes_sends_none(office: PermitOffice) -> None:
    backend = RecordingBackend(office, altered=True)
    with pytest.raises(EgressDenied) as caught:
        await drain(EgressGate([backend], office).send("cloud", floor("public"), request("public"), "id"))
    assert caught.value.cause == "wrong_payload"
    assert backend.sent == []


async def test_nothing_leaves_before_the_answer_is_asked_for(office: PermitOffice) -> None:
    backend = RecordingBackend(office)
    events = EgressGate([backend], office).send("cloud", floor("public"), request("public"), "id")
    assert backend.sent == []
    await events.aclose()
    assert backend.sent == []


async def test_edge_gets_the_decision_id_and_a_cloud_a_fresh_one(office: PermitOffice) -> None:
    edge = RecordingBackend(office, "edge", "edge", Reach.DEVICE)
    cloud = RecordingBackend(office)
    gate = EgressGate([edge, cloud], office)
    for _ in range(2):
        for name in ("edge", "cloud"):
            await drain(gate.send(name, floor("public"), request("public"), "decision"))
    assert edge.request_ids == ["decision", "decision"]
    assert len({"decision", *cloud.request_ids}) == 3


def test_two_backends_of_one_name_are_refused(office: PermitOffice) -> None:
    with pytest.raises(ConfigError, match="same name"):
        EgressGate([RecordingBackend(office), RecordingBackend(office)], office)
