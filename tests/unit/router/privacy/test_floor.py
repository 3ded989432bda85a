"""The privacy floor, and that it fails closed."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from router.errors import EgressDenied
from router.privacy.floor import Floor, PrivacyRules, device_floor, floor_of
from router.privacy.reach import Reach
from router.privacy.tags import TagRegistry
from router.request import GenerationRequest, Message, Sampling


def request(text: str = "Why is the sky blue?", **fields: Any) -> GenerationRequest:
    return GenerationRequest(messages=(Message("user", text),), **fields)


def nothing(_request: GenerationRequest) -> Mapping[str, int]:
    return {}


def broken(_request: GenerationRequest) -> Mapping[str, int]:
    raise RuntimeError("canary")


@pytest.mark.parametrize(
    ("tags", "reach", "steps"),
    [
        ((), Reach.CLOUD, ("untagged: cloud",)),
        (("public",), Reach.CLOUD, ("tag public: cloud",)),
        (("Internal ", "public"), Reach.FLEET, ("tag internal: fleet", "tag public: cloud")),
        (("public", "phi"), Reach.DEVICE, ("tag public: cloud", "tag phi: device")),
        (("",), Reach.DEVICE, ("unknown tag, number 1: device",)),
        (("public", "canary"), Reach.DEVICE, ("tag public: cloud", "unknown tag, number 2: device")),
    ],
)
def test_the_lowest_tag_holds_and_each_is_a_step(tags: tuple[str, ...], reach: Reach, steps: tuple[str, ...]) -> None:
    floor = floor_of(request(tags=tags), PrivacyRules(), nothing)
    assert (floor.reach, floor.steps) == (reach, steps)


def test_a_policy_tightens_what_has_no_tag() -> None:
    rules = PrivacyRules(untagged=Reach.DEVICE)
    assert floor_of(request(), rules, nothing).reach is Reach.DEVICE
    assert floor_of(request(tags=("public",)), rules, nothing).reach is Reach.CLOUD


def test_a_policys_own_tag_counts() -> None:
    rules = PrivacyRules(TagRegistry({"project-x": Reach.FLEET}))
    assert floor_of(request(tags=("Project-X",)), rules, nothing).steps == ("tag project-x: fleet",)


def test_a_detection_keeps_even_public_text_on_the_device() -> None:
    floor = floor_of(request("write to jane@example.com", tags=("public",)), PrivacyRules())
    assert floor.reach is Reach.DEVICE
    assert floor.detections == ("email",)
    assert floor.steps == ("tag public: cloud", "detected email: device")


def test_a_stop_text_is_searched_too() -> None:
    floor = floor_of(request(sampling=Sampling(stop=("jane@example.com",))), PrivacyRules())
    assert floor.reach is Reach.DEVICE


@pytest.mark.parametrize("reach", Reach)
def test_a_caller_only_tightens(reach: Reach) -> None:
    assert floor_of(request(max_reach=reach), PrivacyRules(), nothing).reach is reach
    assert floor_of(request(max_reach=reach, tags=("phi",)), PrivacyRules(), nothing).reach is Reach.DEVICE


def test_a_broken_detector_means_device_and_its_words_are_not_kept() -> None:
    floor = floor_of(request(tags=("public",)), PrivacyRules(), broken)
    assert floor.reach is Reach.DEVICE
    assert floor.steps == ("tag public: cloud", "detector failed: device")


@pytest.mark.parametrize("findings", [None, {"email": "many", 3: 1}, {"email": None, "x": object()}])
def test_a_detector_that_returns_nonsense_means_device(findings: Any) -> None:
    assert floor_of(request(), PrivacyRules(), lambda _: findings).reach is Reach.DEVICE


@pytest.mark.parametrize("text", ["\ud800", "half \udfff", "\ufdfa" * 200, "a" * ((8 << 20) + 1)], ids=len)
def test_text_that_cannot_be_searched_means_device(text: str) -> None:
    floor = floor_of(request(text), PrivacyRules())
    assert floor.steps == ("untagged: cloud", "detector failed: device")


@pytest.mark.parametrize(
    "fields", [{"tags": (None,)}, {"tags": 3}, {"tags": "public"}, {"max_reach": 99}, {"max_reach": "cloud"}]
)
def test_a_malformed_request_means_device(fields: dict[str, Any]) -> None:
    assert floor_of(request(**fields), PrivacyRules(), nothing).reach is Reach.DEVICE


def test_tightening_never_loosens_but_is_recorded() -> None:
    floor = device_floor("nobody knows").tightened(Reach.CLOUD, "a wish")
    assert floor.reach is Reach.DEVICE
    assert floor.steps == ("nobody knows: device", "a wish: cloud")


def test_a_floor_cannot_be_written_by_hand() -> None:
    with pytest.raises(EgressDenied, match="made from a request") as denied:
        Floor(Reach.CLOUD, (), (), seal=object())
    assert denied.value.cause == "forged"


def test_a_floor_cannot_be_altered() -> None:
    floor = device_floor("x")
    with pytest.raises(AttributeError):
        floor.reach = Reach.CLOUD  # type: ignore[misc]  # that it is refused is the point
    with pytest.raises(ValueError, match="seal"):
        replace(floor, reach=Reach.CLOUD)  # type: ignore[call-arg]  # as above
