"""From the wire to what the engine takes: everything a caller sent is checked here, before it is queued."""

import re
import uuid
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from flashgate.v1 import common_pb2, edge_pb2
from google.protobuf.message import DecodeError

from edge.errors import PromptTooLongError, RequestError
from edge.prompt import ChatMessage, PromptEncoder
from edge.sampler import SamplingParams
from edge.server.limits import MAX_MESSAGES
from edge.stop import MAX_STOPS
from edge.tokenizer import SamplingDefaults

MAX_TENANT_CHARACTERS = 256
DEFAULT_MAX_TOKENS = 256
# It goes into logs: nothing that could forge a line or fill a disk.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/-]{1,128}")


class Received:
    """A request as it came, to be taken once: gRPC holds on to this until the answer has ended, the prompt is gone."""

    def __init__(self, message: edge_pb2.EdgeServiceGenerateRequest | RequestError) -> None:
        """Bytes that were no request are an error, so that the caller gets a status with a reason."""
        self._message: edge_pb2.EdgeServiceGenerateRequest | RequestError | None = message

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """A request deserializer that does not raise: what gRPC makes of that has no reason and quotes the parser."""
        try:
            message = edge_pb2.EdgeServiceGenerateRequest.FromString(payload)
        except DecodeError:
            text = "the bytes sent are no EdgeServiceGenerateRequest, or hold text that is not UTF-8"
            return cls(RequestError(text))
        return cls(_too_many(message) or message)

    @property
    def request_id(self) -> str:
        """The caller's, or a new one. Raises: RequestError on one that does not belong in a log, or on no request."""
        given = self._readable().request_id
        if not given:
            return str(uuid.uuid4())
        if not REQUEST_ID.fullmatch(given):
            raise RequestError("request_id must be 1 to 128 letters, digits or any of . _ : / -")
        return given

    def take(self) -> edge_pb2.EdgeServiceGenerateRequest:
        """The request. Raises: RequestError on bytes that were none."""
        message, self._message = self._readable(), None
        return message

    def drop(self) -> None:
        """Let the request go, taken or not."""
        self._message = None

    def _readable(self) -> edge_pb2.EdgeServiceGenerateRequest:
        if isinstance(self._message, RequestError):
            raise self._message
        if self._message is None:
            raise RuntimeError("the request was taken already")
        return self._message


@dataclass(frozen=True, slots=True)
class Encoded:
    """A request ready for the queue. prompt_bytes: UTF-8 bytes of its text; 0 if it came as ids."""

    ids: Sequence[int]  # 4 bytes each: many prompts wait
    sampling: SamplingParams
    stops: tuple[str, ...]
    tenant: str
    prompt_bytes: int


def encode(received: Received, encoder: PromptEncoder, defaults: SamplingDefaults, max_prompt_bytes: int) -> Encoded:
    """Takes what was received. Raises: RequestError, PromptTooLongError.

    As slow as tokenizing: call it off the event loop.
    """
    request = received.take()
    sampling = _sampling(request.sampling, defaults)
    prompt_bytes = _prompt_bytes(request)
    if prompt_bytes > max_prompt_bytes:
        raise PromptTooLongError(f"the prompt has {prompt_bytes} bytes: at most {max_prompt_bytes} are allowed")
    if len(request.tenant) > MAX_TENANT_CHARACTERS:
        limit = f"at most {MAX_TENANT_CHARACTERS} are allowed"
        raise RequestError(f"tenant has {len(request.tenant)} characters: {limit}")
    ids = array("I", _ids(request, encoder))
    return Encoded(ids, sampling, tuple(request.sampling.stop), request.tenant, prompt_bytes)


def _too_many(request: edge_pb2.EdgeServiceGenerateRequest) -> RequestError | None:
    """What is two bytes on the wire and hundreds here is counted before anybody looks at it.

    Returned and not raised: the traceback would keep the request until its caller has read the refusal.
    """
    for name, count, most in (
        ("chat", len(request.chat.messages), MAX_MESSAGES),
        ("stop", len(request.sampling.stop), MAX_STOPS),
    ):
        if count > most:
            return RequestError(f"{name} has {count} texts: at most {most} are allowed")
    return None


def _prompt_bytes(request: edge_pb2.EdgeServiceGenerateRequest) -> int:
    if request.WhichOneof("prompt") == "chat":
        return sum(len(message.role) + len(message.content.encode()) for message in request.chat.messages)
    return len(request.text.encode())


def _ids(request: edge_pb2.EdgeServiceGenerateRequest, encoder: PromptEncoder) -> list[int]:
    match request.WhichOneof("prompt"):
        case "chat":
            return encoder.chat([ChatMessage(message.role, message.content) for message in request.chat.messages])
        case "text":
            return encoder.text(request.text)
        case "token_ids":
            return encoder.token_ids(request.token_ids.ids)
        case _:
            raise RequestError("the request has no prompt: set chat, text or token_ids")


def _sampling(wanted: common_pb2.Sampling, defaults: SamplingDefaults) -> SamplingParams:
    """What the caller left unset is the model's own default."""
    return SamplingParams(
        max_tokens=wanted.max_tokens if wanted.HasField("max_tokens") else DEFAULT_MAX_TOKENS,
        temperature=_exact(wanted.temperature) if wanted.HasField("temperature") else defaults.temperature,
        top_p=_exact(wanted.top_p) if wanted.HasField("top_p") else defaults.top_p,
        top_k=wanted.top_k if wanted.HasField("top_k") else defaults.top_k,
        min_p=_exact(wanted.min_p) if wanted.HasField("min_p") else defaults.min_p,
        seed=wanted.seed if wanted.HasField("seed") else None,
    )


def _exact(value: float) -> float:
    """The decimal that the caller wrote: 0.7 comes over the wire in single precision as 0.699999988."""
    return float(f"{value:.7g}")
