"""Checks of conditions that types cannot make: names that are compared but do not exist."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final, get_args

from router.policy.condition import Fault
from router.privacy.detect import KINDS
from router.privacy.reach import Reach
from router.request import LatencyClass

_LITERAL: Final = r"""(?P<quote>['"])(?P<name>[^'"\\]*)(?P=quote)"""
_IN: Final = _LITERAL + r"\s+in\s+(?P<variable>request\.tags|detections)\b"
_COMPARED: Final = (
    r"\b(?P<variable>floor|latency\.class|(?:edge|cloud|request)\.(?:min_)?capability)\s*[=!]=\s*" + _LITERAL
)
_COMPARISONS: Final = (re.compile(_IN), re.compile(_COMPARED))


def unknown_names(source: str, tags: Collection[str], capabilities: Collection[str]) -> Iterator[Fault]:
    """Literals in `source` that a variable can never equal, at their line and column."""
    known = _known(tags, capabilities)
    for pattern in _COMPARISONS:
        for match in pattern.finditer(source):
            names = known[match["variable"]]
            if match["name"] not in names:
                at = match.start("quote")
                line, column = source.count("\n", 0, at) + 1, at - (source.rfind("\n", 0, at) + 1) + 1
                yield Fault(
                    line, column, f"{match['name']!r} is unknown: known are {', '.join(sorted(filter(None, names)))}"
                )


def _known(tags: Collection[str], capabilities: Collection[str]) -> Mapping[str, Collection[str]]:
    classes = ("", *capabilities)
    return {
        "request.tags": tags,
        "detections": {kind.name for kind in KINDS},
        "floor": [reach.label for reach in Reach],
        "latency.class": ("", *get_args(LatencyClass)),
        "request.min_capability": classes,
        "request.capability": classes,
        "edge.capability": classes,
        "cloud.capability": classes,
    }
