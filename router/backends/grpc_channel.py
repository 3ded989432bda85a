"""One gRPC channel to one backend: how it is opened, and what its errors mean."""

import ipaddress
import re
from typing import Final

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from router.backends.failure import BackendError, Cause

MAX_RECEIVE_BYTES: Final = 16 << 20
# What a server asks for beyond this is taken for a mistake.
MAX_RETRY_AFTER_S: Final = 3600.0

_OPTIONS: Final = (
    # A proxy named in the environment would be a way out that no permit covers.
    ("grpc.enable_http_proxy", 0),
    # A permit is for one send: the library must not send again on its own.
    ("grpc.enable_retries", 0),
    # Settings must come from here, not from a DNS record.
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),
    # A restarted backend is found again within a second, instead of after minutes of backing off.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # This one is, despite its name, also the time that one connection attempt may take.
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", -1),
)

_CAUSES: Final = {
    grpc.StatusCode.UNAVAILABLE: Cause.UNREACHABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Cause.OVERLOADED,
    grpc.StatusCode.DEADLINE_EXCEEDED: Cause.TIMED_OUT,
    grpc.StatusCode.INVALID_ARGUMENT: Cause.REJECTED,
    grpc.StatusCode.OUT_OF_RANGE: Cause.REJECTED,
    grpc.StatusCode.UNAUTHENTICATED: Cause.UNAUTHORIZED,
    grpc.StatusCode.PERMISSION_DENIED: Cause.UNAUTHORIZED,
}
_TOO_LARGE: Final = "message larger than max"
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,62}")


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel in plain text; it connects when first used."""
    return grpc.aio.insecure_channel(target(address), options=_OPTIONS)


def target(address: str) -> str:
    """What gRPC is told to dial. `localhost` counts as this device, so no resolver may have a say in where it is."""
    host, _, port = address.rpartition(":")
    return f"127.0.0.1:{port}" if host == "localhost" else address


def is_loopback(address: str) -> bool:
    """Whether a gRPC target (`host:port`, `[v6]:port`, `unix:…`) stays on this machine. A name other than
    localhost does not count: what it resolves to may change."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0]
    if host == "localhost":
        return True
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        # gRPC takes `::1:5005` for an address as a whole, on another machine.
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def backend_error(backend: str, error: grpc.aio.AioRpcError) -> BackendError:
    """Ours for a failed call. The server's own text is left out: it may quote the request."""
    code = error.code()
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    _read_details(error, info, retry)
    reason = info.reason if _REASON.fullmatch(info.reason) else ""
    cause = _CAUSES.get(code, Cause.FAILED)
    if cause is Cause.REJECTED and reason == "PROMPT_TOO_LONG":
        cause = Cause.PROMPT_TOO_LONG
    if cause is Cause.OVERLOADED and not reason and _TOO_LARGE in (error.details() or ""):
        cause = Cause.PROMPT_TOO_LONG  # said by the server's library, and by no means better later
    # Its own arithmetic fails on delays that a server may well send.
    seconds = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    retry_after_s = seconds if 0 < seconds <= MAX_RETRY_AFTER_S else None
    return BackendError(backend, cause, f"{code.name}{f' ({reason})' if reason else ''}", retry_after_s)


def _read_details(error: grpc.aio.AioRpcError, *wanted: Message) -> None:
    """Fill each of `wanted` from the rich status, where it is there and readable."""
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin" or not isinstance(value, bytes):
            continue
        status = status_pb2.Status()
        try:
            status.ParseFromString(value)
            for detail in status.details:
                for message in wanted:
                    detail.Unpack(message)
        except DecodeError:  # broken details say nothing; the code still does
            return
