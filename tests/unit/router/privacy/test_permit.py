"""Permits: what each refusal is for."""

import copy
import threading
from dataclasses import replace
from typing import Any

import pytest

from router.errors import EgressDenied
from router.privacy.floor import Floor, PrivacyRules, device_floor, floor_of
from router.privacy.permit import LIFE_S, Permit, PermitOffice
from router.privacy.reach import Reach
from router.request import GenerationRequest, Message


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def office(clock: Clock) -> PermitOffice:
    return PermitOffice(clock)


def floor(reach: Reach) -> Floor:
    request = GenerationRequest(messages=(Message("user", "hello"),), max_reach=reach)
    return floor_of(request, PrivacyRules())


def mint(office: PermitOffice, payload: bytes = b"hello") -> Permit:
    return office.mint(floor(Reach.CLOUD), "cloud", Reach.CLOUD, "request-1", payload)


def cause(office: PermitOffice, permit: Any, backend: str = "cloud", payload: bytes = b"hello") -> str:
    with pytest.raises(EgressDenied) as denied:
        office.redeem(permit, backend, payload)
    return denied.value.cause


@pytest.mark.parametrize("allowed", Reach)
@pytest.mark.parametrize("backend", Reach)
def test_no_permit_beyond_the_floor(office: PermitOffice, allowed: Reach, backend: Reach) -> None:
    if backend <= allowed:
        office.redeem(office.mint(floor(allowed), "b", backend, "r", b"x"), "b", b"x")
        return
    with pytest.raises(EgressDenied, match=f"backend b is {backend.label}, the floor {allowed.label}") as denied:
        office.mint(floor(allowed), "b", backend, "r", b"x")
    assert denied.value.cause == "floor"


class FakeFloor(Floor):
    """Says what it likes."""


@pytest.mark.parametrize("reach", [0, 1, 4, "cloud", None])
def test_no_permit_for_what_is_no_reach(office: PermitOffice, reach: Any) -> None:
    with pytest.raises(EgressDenied) as denied:
        office.mint(floor(Reach.CLOUD), "b", reach, "r", b"x")
    assert denied.value.cause == "forged"


@pytest.mark.parametrize("forged", [None, Reach.CLOUD, object.__new__(FakeFloor)], ids=["none", "reach", "subclass"])
def test_no_permit_for_what_is_no_floor(office: PermitOffice, forged: Any) -> None:
    with pytest.raises(EgressDenied) as denied:
        office.mint(forged, "b", Reach.DEVICE, "r", b"x")
    assert denied.value.cause == "forged"


def test_a_permit_is_redeemed_once(office: PermitOffice) -> None:
    permit = mint(office)
    office.redeem(permit, "cloud", b"hello")
    assert cause(office, permit) == "reused"


def test_a_copy_is_the_same_permit(office: PermitOffice) -> None:
    permit = mint(office)
    office.redeem(copy.deepcopy(permit), "cloud", b"hello")
    assert cause(office, permit) == "reused"


def test_other_bytes_are_refused(office: PermitOffice) -> None:
    assert cause(office, mint(office), payload=b"hello!") == "wrong_payload"


def test_another_backend_is_refused(office: PermitOffice) -> None:
    assert cause(office, mint(office), backend="cloud-2") == "wrong_backend"


def test_a_permit_presented_in_vain_is_spent(office: PermitOffice) -> None:
    permit = mint(office)
    cause(office, permit, payload=b"other")
    assert cause(office, permit) == "reused"


@pytest.mark.parametrize(("age_s", "is_valid"), [(LIFE_S - 0.001, True), (LIFE_S, False), (3600.0, False)])
def test_a_permit_lives_for_a_short_time(office: PermitOffice, clock: Clock, age_s: float, is_valid: bool) -> None:
    permit = mint(office)
    clock.now += age_s
    if is_valid:
        office.redeem(permit, "cloud", b"hello")
    else:
        assert cause(office, permit) == "expired"


def test_an_expired_permit_is_forgotten_and_stays_expired(office: PermitOffice, clock: Clock) -> None:
    permit = mint(office)
    clock.now += LIFE_S
    mint(office)
    assert cause(office, permit) == "expired"


@pytest.mark.parametrize(
    "change",
    [
        {"backend": "cloud-2"},
        {"reach": Reach.DEVICE},
        {"request_id": "request-2"},
        {"digest": bytes(32)},
        {"expires_at": 1e9},
        {"nonce": bytes(16)},
        {"mac": bytes(32)},
        {"mac": b""},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_altered_permit_is_refused(office: PermitOffice, change: dict[str, Any]) -> None:
    permit = mint(office)
    assert cause(office, replace(permit, **change)) == "forged"
    office.redeem(permit, "cloud", b"hello")


def test_a_permit_of_another_office_is_refused(office: PermitOffice) -> None:
    assert cause(office, mint(PermitOffice())) == "forged"


def test_a_permit_made_up_is_refused(office: PermitOffice) -> None:
    assert cause(office, Permit("cloud", Reach.CLOUD, "r", bytes(32), 1e9, bytes(16), bytes(32))) == "forged"


@pytest.mark.parametrize("value", [None, "permit", b"", True])
def test_what_is_no_permit_is_refused(office: PermitOffice, value: Any) -> None:
    assert cause(office, value) == "forged"


def test_one_of_many_threads_redeems(office: PermitOffice) -> None:
    permit, redeemed, start = mint(office), [], threading.Barrier(8)

    def redeem() -> None:
        start.wait()
        try:
            office.redeem(permit, "cloud", b"hello")
            redeemed.append(True)
        except EgressDenied:
            pass

    threads = [threading.Thread(target=redeem) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert redeemed == [True]


def test_a_permit_shows_no_secret(office: PermitOffice) -> None:
    permit = mint(office)
    assert permit.mac.hex() not in repr(permit)
    assert repr(permit.mac) not in repr(permit)


def test_the_device_needs_a_permit_too(office: PermitOffice) -> None:
    permit = office.mint(device_floor("x"), "edge", Reach.DEVICE, "r", b"x")
    assert cause(office, permit, "edge", b"y") == "wrong_payload"
