"""The client's side of one HTTP request: its body, and its leaving."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from router.gateway.parameter import ParameterError

_T = TypeVar("_T")

# JSON may write a byte of text as six.
MAX_BODY_BYTES: Final = 24 << 20
BODY_TIMEOUT_S = 30.0


class ClientLeftError(Exception):
    """The client closed its connection: nobody is there to tell."""


class BodyTooLongError(ParameterError):
    """The body is beyond the limit of bytes."""


class BodyTooSlowError(ParameterError):
    """The body did not arrive in time."""


class MediaTypeError(ParameterError):
    """The body is of a kind that is not read here."""


async def read_body(request: Request) -> bytes:
    """Raises BodyTooLongError before reading what is announced as too long, BodyTooSlowError, ClientLeftError."""
    announced = request.headers.get("content-length", "0")
    # h11 has checked that it is a number.
    if int(announced) > MAX_BODY_BYTES:
        raise BodyTooLongError(None, f"the body has {announced} bytes; at most {MAX_BODY_BYTES}", "body_too_long")
    pieces = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for piece in request.stream():
                pieces += piece
                if len(pieces) > MAX_BODY_BYTES:
                    raise BodyTooLongError(None, f"the body has more than {MAX_BODY_BYTES} bytes", "body_too_long")
    except TimeoutError:
        raise BodyTooSlowError(
            None, f"the body did not arrive within {BODY_TIMEOUT_S:.0f} s", "body_too_slow"
        ) from None
    except ClientDisconnect:
        raise ClientLeftError from None
    return bytes(pieces)


async def unless_client_leaves(receive: Receive, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of `work`, which is cancelled, and ClientLeftError raised, if the client leaves first.

    The request's body must have been read: what `receive` then brings is the client's leaving.
    """
    task = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(receive))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientLeftError
    finally:
        task.cancel()
        leaving.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class SseResponse(Response):
    """Sends events until they end or the client leaves; then closes them and the source that they are made of.

    The source is closed here because a generator that was never started does not close what it holds.
    """

    def __init__(
        self, events: AsyncGenerator[bytes, None], source: AsyncGenerator[Any, None], headers: Mapping[str, str]
    ) -> None:
        super().__init__(headers={**headers, "cache-control": "no-store"}, media_type="text/event-stream")
        # The length of a stream is not known; the base class took it for an empty body.
        del self.headers["content-length"]
        self._events = events
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        async with aclosing(self._source), aclosing(self._events):
            with contextlib.suppress(ClientLeftError):
                await unless_client_leaves(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for event in self._events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
