"""From the wire to what the engine takes: everything a caller sent is checked here, before it is queued."""

import re
import uuid
from dataclasses import dataclass

from flashgate.v1 import common_pb2, edge_pb2
from google.protobuf.message import DecodeError

from edge.errors import PromptTooLongError, RequestError
from edge.prompt import ChatMessage, PromptEncoder
from edge.sampler import SamplingParams
from edge.tokenizer import SamplingDefaults

MAX_PROMPT_BYTES = 4 * 2**20
MAX_TENANT_CHARACTERS = 256
DEFAULT_MAX_TOKENS = 256
# It goes into logs: nothing that could forge a line or fill a disk.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/-]{1,128}")


class Unreadable:
    """Stands for bytes that are no request, so that the caller gets a status with a reason."""


def parse(payload: bytes) -> edge_pb2.EdgeServiceGenerateRequest | Unreadable:
    """A request deserializer that does not raise: what gRPC makes of that has no reason and quotes the parser."""
    try:
        return edge_pb2.EdgeServiceGenerateRequest.FromString(payload)
    except DecodeError:
        return Unreadable()


def readable(request: edge_pb2.EdgeServiceGenerateRequest | Unreadable) -> edge_pb2.EdgeServiceGenerateRequest:
    """Raises: RequestError on bytes that were no request."""
    if isinstance(request, Unreadable):
        raise RequestError("the bytes sent are no EdgeServiceGenerateRequest, or hold text that is not UTF-8")
    return request


@dataclass(frozen=True, slots=True)
class Encoded:
    """A request ready for the queue. prompt_bytes: UTF-8 bytes of its text; 0 if it came as ids."""

    ids: list[int]
    sampling: SamplingParams
    stops: tuple[str, ...]
    tenant: str
    prompt_bytes: int


def request_id(request: edge_pb2.EdgeServiceGenerateRequest) -> str:
    """The caller's, or a new one. Raises: RequestError on one that does not belong in a log."""
    if not request.request_id:
        return str(uuid.uuid4())
    if not REQUEST_ID.fullmatch(request.request_id):
        raise RequestError("request_id must be 1 to 128 letters, digits or any of . _ : / -")
    return request.request_id


def encode(request: edge_pb2.EdgeServiceGenerateRequest, encoder: PromptEncoder, defaults: SamplingDefaults) -> Encoded:
    """Raises: RequestError, PromptTooLongError. Takes as long as tokenizing does: call it off the event loop."""
    sampling = _sampling(request.sampling, defaults)
    prompt_bytes = _prompt_bytes(request)
    if prompt_bytes > MAX_PROMPT_BYTES:
        raise PromptTooLongError(f"the prompt has {prompt_bytes} bytes: at most {MAX_PROMPT_BYTES} are allowed")
    if len(request.tenant) > MAX_TENANT_CHARACTERS:
        limit = f"at most {MAX_TENANT_CHARACTERS} are allowed"
        raise RequestError(f"tenant has {len(request.tenant)} characters: {limit}")
    return Encoded(_ids(request, encoder), sampling, tuple(request.sampling.stop), request.tenant, prompt_bytes)


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
