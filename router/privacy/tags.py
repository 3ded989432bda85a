"""Privacy tags: what each allows. A policy may add tags and tighten these; nothing can loosen them."""

from collections.abc import Mapping
from types import MappingProxyType

from router.privacy.reach import Reach

_DEVICE_TAGS = (
    "biometric",
    "confidential",
    "credentials",
    "financial",
    "genetic",
    "hr",
    "legal",
    "location",
    "minor",
    "pci",
    "phi",
    "pii",
    "privileged",
    "restricted",
    "secret",
    "trade_secret",
)

BUILT_IN: Mapping[str, Reach] = MappingProxyType(
    {"public": Reach.CLOUD, "internal": Reach.FLEET, **dict.fromkeys(_DEVICE_TAGS, Reach.DEVICE)}
)


def normalise(tag: str) -> str:
    """Tags ignore case and surrounding space; what is not ASCII stays as it is and so matches no known tag."""
    stripped = tag.strip()
    return stripped.lower() if stripped.isascii() else stripped


class TagRegistry:
    """The known tags and how far each lets a request travel. Immutable."""

    def __init__(self, extension: Mapping[str, Reach] = MappingProxyType({})) -> None:
        """`extension`: a policy's own tags, and built-in ones made stricter.

        Raises: ValueError if a built-in tag would be loosened.
        """
        for tag, reach in extension.items():
            if reach > BUILT_IN.get(tag, Reach.CLOUD):
                raise ValueError(f"tag {tag} is built in as {BUILT_IN[tag].label}; {reach.label} would loosen it")
        self._reaches = MappingProxyType({**BUILT_IN, **extension})

    @property
    def reaches(self) -> Mapping[str, Reach]:
        return self._reaches

    def reach_of(self, tag: str) -> Reach | None:
        """None for an unknown tag, which then counts as the strictest."""
        return self._reaches.get(normalise(tag))
