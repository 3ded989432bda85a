"""One process's life: listen on both ports, say so, drain on a signal."""

import asyncio
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from cloud_stub.cloud import Cloud
from cloud_stub.errors import StartError
from cloud_stub.grpc_server import GrpcServer
from cloud_stub.http_server import HttpServer
from cloud_stub.intake import Intake
from cloud_stub.metrics import Metrics
from cloud_stub.record import Record
from cloud_stub.scenario import Scenario

# Running answers may take this long to end after SIGTERM; a slow scenario is then cut.
DRAIN_S = 5.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Options:
    """What one stub is: addresses, identity, behaviour, record. Port 0 is any free one."""

    host: str
    port: int
    metrics_port: int
    model: str
    text: str
    scenario: Scenario
    record: Path | None = None

    def __post_init__(self) -> None:
        """Raises StartError naming the option, its value and its range."""
        for name, port in (("--port", self.port), ("--metrics-port", self.metrics_port)):
            if not 0 <= port <= 65535:
                raise StartError(f"{name} is {port}: give a port from 0 to 65535")
        if not self.model or any(letter.isspace() for letter in self.model):
            # The ready line is split at white space.
            raise StartError(f"--model is {self.model!r}: give a name without white space")
        if not self.text.strip():
            raise StartError("--text is empty: give at least one word")


async def serve(options: Options) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises StartError."""
    metrics = Metrics(CollectorRegistry(), options.model)
    record = Record(options.record) if options.record else None
    try:
        await _serve(options, metrics, Intake(record, metrics))
    finally:
        if record is not None:
            record.close()


async def _serve(options: Options, metrics: Metrics, intake: Intake) -> None:
    cloud = Cloud(options.model, options.text, options.scenario, metrics)
    listener = _listen(options.host, options.metrics_port)
    grpc_server = GrpcServer(cloud, intake)
    try:
        grpc_port = await grpc_server.start(_address(options.host, options.port))
    except StartError:
        listener.close()
        raise
    http_server = HttpServer(cloud, intake, metrics)
    stopping = _stop_signal()
    http_server.start(listener)
    http = _address(options.host, listener.getsockname()[1])
    grpc = _address(options.host, grpc_port)
    _announce(f"ready flashgate-cloud-stub grpc={grpc} http={http} metrics={http} model={options.model}")
    await stopping.wait()
    log.info("draining", limit_s=DRAIN_S)
    cloud.stop()
    await asyncio.gather(grpc_server.stop(DRAIN_S), http_server.stop(DRAIN_S))
    log.info("stopped")


def _stop_signal() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; a second one ends the process at once, as if nobody caught it."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopping.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopping


def _listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket: connections queue from here on. Raises StartError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's delay off only where the protocol is named; each answer would take 40 ms more.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as exc:
        listener.close()
        raise StartError(
            f"HTTP cannot listen on {_address(host, port)}: {exc.strerror}. `ss -ltnp` names who has the port; "
            "or choose another with --metrics-port"
        ) from exc
    return listener


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _announce(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
