"""What every HTTP request passes before a route sees it."""

import ipaddress

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from router.gateway import openai_answer

# Two of these in one request could be read differently by two readers of it. Tags may repeat: they add up.
_ONCE = (b"authorization", b"content-length", b"content-type", b"host", b"transfer-encoding")


class HttpGuard:
    """Refuses requests with doubled headers, and, on a loopback address, with another machine's name as the host:
    a web page can point its own name at 127.0.0.1 and would then be talking to us."""

    def __init__(self, app: ASGIApp, *, only_loopback_hosts: bool) -> None:
        self._app = app
        self._only_loopback_hosts = only_loopback_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = [name for name, _ in scope["headers"]]
        doubled = next((name for name in _ONCE if names.count(name) > 1), None)
        if doubled is not None:
            await _refusal(400, f"header {doubled.decode()} is given twice", "duplicate_header")(scope, receive, send)
            return
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if self._only_loopback_hosts and not is_loopback_host(host):
            message = "the Host header must name this machine (127.0.0.1, localhost or [::1])"
            await _refusal(403, message, "foreign_host")(scope, receive, send)
            return
        await self._app(scope, receive, send)


def is_loopback_host(host: str) -> bool:
    """Whether a Host header, with or without a port, names this machine."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _refusal(status: int, message: str, code: str) -> JSONResponse:
    return JSONResponse(openai_answer.error(message, "invalid_request_error", code), status)
