"""The gateway process: puts the parts together, says that it is ready, reloads, drains."""

import asyncio
import ipaddress
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry

from router.backends.backend import Backend, StateObserver
from router.backends.cloud_grpc import CloudGrpcBackend
from router.backends.cloud_openai import ApiKey, CloudOpenAiBackend
from router.backends.edge_grpc import EdgeGrpcBackend
from router.backends.failure import BackendError
from router.backends.gate import EgressGate
from router.gateway.credentials import Credentials
from router.gateway.grpc_server import GrpcServer
from router.gateway.http_server import HttpServer
from router.gateway.use_case import Gateway
from router.logging import Logger
from router.metrics import Metrics
from router.policy.live import LivePolicy, PolicyEvent, PolicyObserver
from router.policy.policy import Policy
from router.privacy.permit import PermitOffice
from router.request import BackendState
from router.resilience.attempts import Attempts


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What `flashgate serve` was asked to do. Ports: 0 is any free one."""

    host: str = "127.0.0.1"
    grpc_port: int = 50050
    http_port: int = 8080
    edges: tuple[str, ...] = ("127.0.0.1:50051",)
    cloud: str | None = None
    cloud_openai: str | None = None
    cloud_model: str = ""
    edge_capability: str = "standard"
    cloud_capability: str = "frontier"
    cloud_key: str = field(default="", repr=False)
    policy: Path | None = None
    api_keys: Path | None = None
    drain_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Running:
    """A started gateway and where it listens."""

    gateway: Gateway
    policies: LivePolicy
    grpc_address: str
    http_address: str


async def serve(options: ServeOptions, log: Logger, out: TextIO) -> None:
    """Run until SIGTERM or SIGINT, then drain. Raises ConfigError, PolicyError."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        running = await start(options, log, stack)
        loop.add_signal_handler(signal.SIGHUP, running.policies.reload)
        out.write(
            f"ready flashgate grpc={running.grpc_address} http={running.http_address} "
            f"policy={running.gateway.policy_hash}\n"
        )
        out.flush()
        await stopping.wait()
        log.info("draining", at_most_s=options.drain_s)
        running.gateway.is_accepting = False


async def start(options: ServeOptions, log: Logger, stack: AsyncExitStack) -> Running:
    """Start everything; closing `stack` drains and stops it. Raises ConfigError, PolicyError."""
    metrics = Metrics(CollectorRegistry())
    credentials = Credentials() if options.api_keys is None else Credentials.load(options.api_keys)
    policies = LivePolicy.open(options.policy, _policy_observer(metrics, log))
    watching = asyncio.create_task(policies.watch())
    watching.add_done_callback(lambda task: task.cancelled() or log.error("policy_watch_ended"))
    stack.callback(watching.cancel)
    observe, office = _StateObserver(metrics, log), PermitOffice()
    gate = EgressGate(_backends(options, office, observe), office)
    for state in gate.states():
        observe(state)
    attempts = Attempts(gate, on_failure=_failure_observer(metrics, log))
    gateway = Gateway(attempts, policies, metrics, log)
    grpc_server = GrpcServer(gateway, credentials, log)
    is_loopback = _is_loopback(options.host)
    http_server = HttpServer(gateway, credentials, metrics, log, only_loopback_hosts=is_loopback)
    _warn(options, policies.current, log, is_loopback=is_loopback)

    # Closed in reverse: the servers drain, then the backends that running answers need go.
    stack.push_async_callback(gate.close)
    await gate.start()
    stack.push_async_callback(_drain, grpc_server, http_server, options.drain_s)
    grpc_port = await grpc_server.start(_address(options.host, options.grpc_port))
    http_port = await http_server.start(options.host, options.http_port)
    return Running(gateway, policies, _address(options.host, grpc_port), _address(options.host, http_port))


async def _drain(grpc_server: GrpcServer, http_server: HttpServer, drain_s: float) -> None:
    """Both at once: neither may take new requests while the other waits for its answers."""
    await asyncio.gather(grpc_server.stop(drain_s), http_server.stop(drain_s))


def _backends(options: ServeOptions, office: PermitOffice, observe: StateObserver) -> list[Backend]:
    """Names are `edge`, `edge-2`, … and `cloud`: they stand in decisions and metrics."""
    backends: list[Backend] = []
    for number, address in enumerate(options.edges, 1):
        name = "edge" if number == 1 else f"edge-{number}"
        backends.append(EdgeGrpcBackend(name, address, options.edge_capability, office, observe))
    model, capability = options.cloud_model, options.cloud_capability
    if options.cloud is not None:
        backends.append(CloudGrpcBackend("cloud", options.cloud, model, capability, office, observe))
    if options.cloud_openai is not None:
        key = ApiKey(options.cloud_key)
        backends.append(CloudOpenAiBackend("cloud", options.cloud_openai, key, model, capability, office, observe))
    return backends


class _StateObserver:
    """Counts each state, logs each change: a backend is looked at every half second."""

    def __init__(self, metrics: Metrics, log: Logger) -> None:
        self._metrics = metrics
        self._log = log
        self._last: dict[str, tuple[bool, str]] = {}

    def __call__(self, state: BackendState) -> None:
        self._metrics.backend_state(state.name, state.lane, state.model, state.available)
        now = (state.available, state.cause)
        if self._last.get(state.name) != now:
            self._last[state.name] = now
            fields = {"backend": state.name, "lane": state.lane, "reach": state.reach.label, "model": state.model}
            self._log.info("backend_state", available=state.available, cause=state.cause, **fields)


def _policy_observer(metrics: Metrics, log: Logger) -> PolicyObserver:
    def observe(event: PolicyEvent) -> None:
        metrics.policy_reloaded(event.outcome)
        metrics.policy_in_force(event.policy_hash)
        if event.outcome == "refused":
            log.error("policy_refused", in_force=event.policy_hash, findings=event.error.splitlines())
        else:
            log.info("policy_loaded", policy=event.policy_hash)

    return observe


def _failure_observer(metrics: Metrics, log: Logger) -> Callable[[BackendError], None]:
    def observe(error: BackendError) -> None:
        metrics.fell_back(error.backend, error.cause)
        log.warning("backend_failed", backend=error.backend, cause=error.cause)

    return observe


def _warn(options: ServeOptions, policy: Policy, log: Logger, *, is_loopback: bool) -> None:
    """What is allowed but seldom meant."""
    if not is_loopback and options.api_keys is None:
        log.warning("open_to_the_network", host=options.host, remedy="--api-keys, or --host 127.0.0.1")
    url = urlsplit(options.cloud_openai or "")
    if url.scheme == "http" and not _is_loopback(url.hostname or ""):
        log.warning("cloud_without_encryption", remedy="an https:// base URL")
    for name in {options.edge_capability, options.cloud_capability} - set(policy.capabilities):
        log.warning("capability_unknown_to_policy", capability=name, known=policy.capabilities)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
