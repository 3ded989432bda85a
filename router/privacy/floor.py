"""The privacy floor: how far one request may travel, and each step that says so. Code, not policy.

Nothing loosens a floor: the lowest of all steps holds, and whatever goes wrong on the way counts as `device`.
"""

from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, field
from typing import Final

from router.errors import EgressDenied
from router.privacy.detect import scan
from router.privacy.reach import Reach
from router.privacy.tags import TagRegistry
from router.request import GenerationRequest

# What found identifiers allow, until masking exists.
DETECTED_REACH: Final = Reach.DEVICE

# Counts identifiers in a request by kind; a failure of any sort forbids every way off the device.
Detector = Callable[[GenerationRequest], Mapping[str, int]]

# Whoever has not imported this cannot make a Floor, only tighten one.
_SEAL: Final = object()


@dataclass(frozen=True, slots=True)
class PrivacyRules:
    """A policy's share in the floor: its tags, and what a request without tags may do."""

    tags: TagRegistry = field(default_factory=TagRegistry)
    untagged: Reach = Reach.CLOUD


@dataclass(frozen=True, slots=True)
class Floor:
    """The furthest reach one request is allowed. Made by `floor_of` and `device_floor` only."""

    reach: Reach
    # Such as "tag phi: device"; in the order they were taken, without content of the request.
    steps: tuple[str, ...]
    # Kinds of identifiers found, sorted; never values.
    detections: tuple[str, ...]
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise EgressDenied("a floor is made from a request, not by hand", "forged")

    def tightened(self, reach: Reach, cause: str) -> "Floor":
        """This floor with one more step; a looser reach changes nothing but is recorded."""
        return _floor(min(self.reach, reach), (*self.steps, f"{cause}: {reach.label}"), self.detections)


def device_floor(cause: str) -> Floor:
    """The strictest floor, for a request about which nothing could be found out."""
    return _floor(Reach.DEVICE, (f"{cause}: {Reach.DEVICE.label}",), ())


def floor_of(request: GenerationRequest, rules: PrivacyRules, detect: Detector = scan) -> Floor:
    """The floor of `request`. Never raises: an exception on the way gives the strictest floor."""
    try:
        floor = _detected(_tagged(request, rules), request, detect)
        if request.max_reach is not None:
            floor = floor.tightened(request.max_reach, "caller's max_reach")
    except Exception:
        return device_floor("floor failed")
    return floor


def _tagged(request: GenerationRequest, rules: PrivacyRules) -> Floor:
    floor = _floor(Reach.CLOUD, (), ())
    if not request.tags:
        return floor.tightened(rules.untagged, "untagged")
    for position, tag in enumerate(request.tags, start=1):
        reach = rules.tags.reach_of(tag)
        if reach is None:
            # Not named: what is no known tag may be anything, content included.
            floor = floor.tightened(Reach.DEVICE, f"unknown tag, number {position}")
        else:
            floor = floor.tightened(reach, f"tag {tag.strip().lower()}")
    return floor


def _detected(floor: Floor, request: GenerationRequest, detect: Detector) -> Floor:
    try:
        kinds = tuple(sorted(kind for kind, count in detect(request).items() if count))
    except Exception:
        return floor.tightened(Reach.DEVICE, "detector failed")
    for kind in kinds:
        floor = floor.tightened(DETECTED_REACH, f"detected {kind}")
    return _floor(floor.reach, floor.steps, kinds)


def _floor(reach: Reach, steps: tuple[str, ...], detections: tuple[str, ...]) -> Floor:
    return Floor(reach, steps, detections, seal=_SEAL)
