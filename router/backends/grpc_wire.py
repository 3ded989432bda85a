"""What the edge's and the cloud's messages have in common, and the call that carries exact bytes."""

from collections.abc import AsyncGenerator, Callable
from typing import Final, Generic, Literal, TypeVar

import grpc
from flashgate.v1 import common_pb2

from router.backends.backend import Finished
from router.backends.failure import BackendError, Cause
from router.backends.grpc_channel import backend_error
from router.request import GenerationRequest, Sampling

_Response = TypeVar("_Response")

_FINISH_REASONS: Final[dict[int, Literal["stop", "length"]]] = {
    common_pb2.FINISH_REASON_STOP: "stop",
    common_pb2.FINISH_REASON_LENGTH: "length",
}


class ExactCall(Generic[_Response]):
    """A method with one request and a stream of answers, whose request goes out as the bytes it is given."""

    def __init__(
        self, backend: str, channel: grpc.aio.Channel, method: str, parse: Callable[[bytes], _Response]
    ) -> None:
        self._backend = backend
        # No serializer: what a permit was minted for is what goes on the wire.
        self._call: grpc.aio.UnaryStreamMultiCallable[bytes, _Response] = channel.unary_stream(
            method, request_serializer=None, response_deserializer=parse
        )

    async def answers(self, payload: bytes) -> AsyncGenerator[_Response, None]:
        """Raises BackendError. No deadline goes with the call, which would tell the server how long the caller
        waits; who reads closes the iterator instead, and that cancels the call."""
        call = self._call(payload)
        try:
            async for answer in call:
                if answer is None:
                    # What the library makes of bytes that the parser refuses.
                    raise BackendError(self._backend, Cause.BROKEN, "it sent bytes that are no answer")
                yield answer
        except grpc.aio.AioRpcError as exc:
            raise backend_error(self._backend, exc) from None
        finally:
            call.cancel()


def chat_messages(request: GenerationRequest) -> list[common_pb2.ChatMessage]:
    return [common_pb2.ChatMessage(role=message.role, content=message.content) for message in request.messages]


def sampling(values: Sampling) -> common_pb2.Sampling:
    """Only what is set: an unset field takes the model's own default."""
    return common_pb2.Sampling(
        max_tokens=values.max_tokens,
        temperature=values.temperature,
        top_p=values.top_p,
        top_k=values.top_k,
        min_p=values.min_p,
        seed=values.seed,
        stop=values.stop,
    )


def finished(
    backend: str, finish_reason: int, usage: common_pb2.Usage | None, reused_tokens: int | None = None
) -> Finished:
    """Raises BackendError for an end that says no reason."""
    reason = _FINISH_REASONS.get(finish_reason)
    if reason is None:
        raise BackendError(backend, Cause.BROKEN, "the answer ended without a finish reason")
    if usage is None:
        return Finished(reason, None, None)
    return Finished(reason, usage.prompt_tokens, usage.completion_tokens, reused_tokens)
