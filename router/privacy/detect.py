"""Finds structured identifiers in a request and says their kinds and counts, never their values."""

from collections.abc import Mapping

from router.request import GenerationRequest


def scan(request: GenerationRequest) -> Mapping[str, int]:
    """Identifiers found in `request`, by kind."""
    raise NotImplementedError
