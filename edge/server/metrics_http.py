"""A small HTTP server beside gRPC: /metrics for Prometheus, /healthz for whatever watches the process."""

import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

from edge.errors import EdgeError

# A client that opens a connection and says nothing does not keep a thread for ever.
IDLE_S = 15.0


class MetricsServer:
    """Serves from a thread of its own. `port` is the real one, also where 0 was asked for.

    Raises: EdgeError if it cannot listen there.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, is_ready: Callable[[], bool]) -> None:
        app = _app(make_wsgi_app(registry), is_ready)
        try:
            self._server = make_server(host, port, app, _ThreadingServer, _Handler)
        except (OSError, OverflowError) as error:
            raise EdgeError(f"cannot listen for metrics on {host}:{port}: {error}") from error
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that hangs up is no event."""


class _Handler(WSGIRequestHandler):
    timeout = IDLE_S

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not logged."""


def _app(metrics: Any, is_ready: Callable[[], bool]) -> Any:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        match environ.get("PATH_INFO"):
            case "/metrics":
                answer: Iterable[bytes] = metrics(environ, start_response)
                return answer
            case "/healthz":
                status, body = ("200 OK", b"ok\n") if is_ready() else ("503 Service Unavailable", b"not ready\n")
            case _:
                status, body = "404 Not Found", b"/metrics and /healthz are here\n"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
        return [body]

    return app
