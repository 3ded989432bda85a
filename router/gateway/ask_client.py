"""A client of a running gateway, for the command line."""

import re
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self, TypeVar

import grpc
from flashgate.v1 import gateway_pb2, gateway_pb2_grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from router.errors import RouterError

_Response = TypeVar("_Response")
_ADDRESS = re.compile(r"(unix:.+|.+:\d{1,5})")
# A proxy named in the environment must not see the prompt.
_OPTIONS: Final = (("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1))


class AskError(RouterError):
    """The gateway refused the request or could not be reached; the text is one line for the terminal."""


class AskClient:
    """One channel to one gateway. Raises AskError from every call."""

    def __init__(self, address: str, key: str, timeout_s: float | None) -> None:
        if not _ADDRESS.fullmatch(address):
            raise AskError(f"--address {address!r} must be HOST:PORT")
        if not key.isascii() or not key.isprintable():
            raise AskError("FLASHGATE_API_KEY has characters that no metadata can carry")
        self._address = address
        self._timeout_s = timeout_s
        self._metadata: tuple[tuple[str, str | bytes], ...] = (("authorization", f"Bearer {key}"),) if key else ()
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._stub = gateway_pb2_grpc.GatewayServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaving in the middle of an answer cancels it at the gateway."""
        self._channel.close()

    def generate(self, request: gateway_pb2.GenerateRequest) -> Iterator[gateway_pb2.GenerateResponse]:
        try:
            yield from self._stub.Generate(request, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as exc:
            raise self._error(exc) from None

    def explain(self, request: gateway_pb2.GenerateRequest) -> gateway_pb2.ExplainResponse:
        try:
            return self._stub.Explain(
                gateway_pb2.ExplainRequest(request=request), timeout=self._timeout_s, metadata=self._metadata
            )
        except grpc.RpcError as exc:
            raise self._error(exc) from None

    def _error(self, error: grpc.RpcError) -> AskError:
        reason = _reason(error)
        if reason:
            return AskError(f"{error.details()} [{reason}]")
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return AskError(f"no gateway answers at {self._address}; `flashgate up` starts one")
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return AskError(f"no answer within --timeout {self._timeout_s:g} s")
        return AskError(f"{self._address}: {error.code().name}: {error.details()}")


def _reason(error: grpc.RpcError) -> str:
    """The ErrorInfo's reason, if the error is the gateway's own."""
    assert isinstance(error, grpc.Call)  # noqa: S101 - what every stub raises
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        return ""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info) and info.domain == "flashgate":
            return info.reason
    return ""
