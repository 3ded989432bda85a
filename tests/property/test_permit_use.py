"""A permit is redeemed once, over the same bytes, by the same backend, in time; and in no other way."""

import hypothesis.strategies as st
from hypothesis import given
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, multiple, rule

from router.errors import EgressDenied
from router.privacy.floor import PrivacyRules, floor_of
from router.privacy.permit import LIFE_S, Permit, PermitOffice
from router.privacy.reach import Reach
from router.request import GenerationRequest, Message

BACKEND = st.sampled_from(["edge", "cloud", "cloud-2"])
PAYLOAD = st.sampled_from([b"", b"a", b"ab", b"\x00" * 100])
REACH = st.sampled_from(Reach)


def request(reach: Reach) -> GenerationRequest:
    return GenerationRequest((Message("user", "hello"),), max_reach=reach)


@given(st.binary(max_size=200), st.binary(max_size=200), st.text(max_size=20), st.text(max_size=20))
def test_only_the_same_bytes_and_backend_redeem(payload: bytes, sent: bytes, backend: str, sender: str) -> None:
    office = PermitOffice()
    permit = office.mint(floor_of(request(Reach.CLOUD), PrivacyRules()), backend, Reach.CLOUD, "r", payload)
    try:
        office.redeem(permit, sender, sent)
    except EgressDenied:
        assert (payload, backend) != (sent, sender)
    else:
        assert (payload, backend) == (sent, sender)


class Offices(RuleBasedStateMachine):
    """Mints, waits and redeems in any order, against a model that remembers what may still be redeemed."""

    permits = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.office = PermitOffice(lambda: self.now)
        # Keyed by nonce: backend, payload, end of life.
        self.valid: dict[bytes, tuple[str, bytes, float]] = {}

    @rule(target=permits, allowed=REACH, reach=REACH, backend=BACKEND, payload=PAYLOAD)
    def mint(self, allowed: Reach, reach: Reach, backend: str, payload: bytes) -> object:
        floor = floor_of(request(allowed), PrivacyRules())
        try:
            permit = self.office.mint(floor, backend, reach, "r", payload)
        except EgressDenied:
            assert reach > allowed
            return multiple()
        assert reach <= allowed
        self.valid[permit.nonce] = (backend, payload, self.now + LIFE_S)
        return permit

    @rule(seconds=st.sampled_from([0.0, 1.0, LIFE_S / 2, LIFE_S]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(permit=permits, backend=BACKEND, payload=PAYLOAD)
    def redeem(self, permit: Permit, backend: str, payload: bytes) -> None:
        self._present(permit, backend, payload)

    @rule(permit=consumes(permits))
    def redeem_as_meant(self, permit: Permit) -> None:
        backend, payload, _ = self.valid.get(permit.nonce, (permit.backend, b"", 0.0))
        self._present(permit, backend, payload)

    def _present(self, permit: Permit, backend: str, payload: bytes) -> None:
        expected = self.valid.pop(permit.nonce, None)
        try:
            self.office.redeem(permit, backend, payload)
        except EgressDenied:
            assert expected is None or expected[:2] != (backend, payload) or self.now >= expected[2]
        else:
            assert expected is not None
            assert expected[:2] == (backend, payload)
            assert self.now < expected[2]


TestOffices = Offices.TestCase
