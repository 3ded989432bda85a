"""Reads a request for `flashgate policy explain`: what the OpenAI API takes, or the fields of our own messages."""

import json
from typing import Any, Final

from router.gateway import limits, openai_request
from router.gateway.json_reader import parse_object
from router.gateway.parameter import ParameterError
from router.request import GenerationRequest

# Ours, which the OpenAI body carries in its `flashgate` object.
_OURS: Final = ("privacy_tags", "latency", "min_capability", "max_reach")


def read(raw: bytes) -> GenerationRequest:
    """The request, as the gateway would accept it. `tenant` may be given, since there are no credentials.

    Raises: RequestError.
    """
    body = parse_object(raw)
    tenant = body.pop("tenant", "default")
    if not isinstance(tenant, str):
        raise ParameterError("tenant", "must be a text")
    _move_ours(body)
    sampling = body.pop("sampling", {})
    if not isinstance(sampling, dict):
        raise ParameterError("sampling", "must be an object")
    for key, value in sampling.items():
        body.setdefault(key, value)
    body.setdefault("model", "any")
    request = openai_request.read(json.dumps(body).encode(), (), tenant).generation
    limits.check(request)
    return request


def _move_ours(body: dict[str, Any]) -> None:
    """Our fields at the top level go where the OpenAI body has them; one given in both places is an error."""
    inner = body.setdefault("flashgate", {})
    if not isinstance(inner, dict):
        raise ParameterError("flashgate", "must be an object")
    for key in _OURS:
        if key in body:
            if key in inner:
                raise ParameterError(key, "is given twice, also in flashgate")
            inner[key] = body.pop(key)
