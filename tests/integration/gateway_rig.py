"""A whole gateway in the test's event loop: real servers and clients, around fakes of what lies behind them."""

import io
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from flashgate.v1 import common_pb2, gateway_pb2, gateway_pb2_grpc
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from router.backends.backend import Backend
from router.backends.cloud_grpc import CloudGrpcBackend
from router.backends.cloud_openai import ApiKey, CloudOpenAiBackend
from router.backends.edge_grpc import EdgeGrpcBackend
from router.backends.gate import EgressGate
from router.gateway.credentials import Credentials
from router.gateway.grpc_server import GrpcServer
from router.gateway.http_server import HttpServer
from router.gateway.use_case import Gateway
from router.logging import logger_to
from router.metrics import Metrics
from router.policy.policy import Choice, Policy, Preference
from router.privacy.detect import scan
from router.privacy.floor import Detector, PrivacyRules
from router.privacy.permit import PermitOffice
from router.request import BackendState
from router.resilience.attempts import Attempts, Limits
from tests.integration.gateway_fakes import until


@dataclass
class StaticPolicy:
    """A policy of one default."""

    current: Policy
    error: str = ""


def prefer(preference: Preference) -> StaticPolicy:
    choice = Choice(preference, f"prefers_{preference}")
    return StaticPolicy(Policy("", "ab" * 32, PrivacyRules(), (), {}, (), choice))


@dataclass
class Rig:
    """A running gateway."""

    gateway: Gateway
    metrics: Metrics
    log: io.StringIO
    grpc_address: str
    http_url: str
    policy: StaticPolicy
    stub: "gateway_pb2_grpc.GatewayServiceAsyncStub"
    states: dict[str, BackendState] = field(default_factory=dict)

    def exposition(self) -> str:
        return generate_latest(self.metrics.registry).decode()

    def log_lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    async def available(self, backend: str, *, expected: bool = True) -> None:
        await until(lambda: self.states[backend].available is expected, f"{backend} available: {expected}")


@asynccontextmanager
async def rig(
    *,
    edge: str | None = None,
    cloud: str | None = None,
    openai: str | None = None,
    policy: StaticPolicy | None = None,
    credentials: Credentials | None = None,
    detect: Detector = scan,
    limits: Limits | None = None,
    key: str = "",
    cloud_model: str = "",
    wait: bool = True,
) -> AsyncGenerator[Rig, None]:
    """Start one; by default wait until every backend is available."""
    log = io.StringIO()
    logger = logger_to(log)
    metrics = Metrics(CollectorRegistry())
    office = PermitOffice()
    states: dict[str, BackendState] = {}

    def observe(state: BackendState) -> None:
        states[state.name] = state
        metrics.backend_state(state.name, state.lane, state.model, state.available)

    gate = EgressGate(_backends(edge, cloud, openai, key, cloud_model, office, observe), office)
    states |= {state.name: state for state in gate.states()}
    attempts = Attempts(gate, limits or Limits(), on_failure=lambda exc: metrics.fell_back(exc.backend, exc.cause))
    policy = policy or prefer("edge")
    gateway = Gateway(attempts, policy, metrics, logger, detect)
    credentials = credentials or Credentials()
    grpc_server = GrpcServer(gateway, credentials, logger)
    http_server = HttpServer(gateway, credentials, metrics, logger, only_loopback_hosts=True)
    await gate.start()
    grpc_address = f"127.0.0.1:{await grpc_server.start('127.0.0.1:0')}"
    http_url = f"http://127.0.0.1:{await http_server.start('127.0.0.1', 0)}"
    try:
        # Without this the proxy test would see the test's own client.
        async with grpc.aio.insecure_channel(grpc_address, options=(("grpc.enable_http_proxy", 0),)) as channel:
            stub = gateway_pb2_grpc.GatewayServiceStub(channel)
            running = Rig(gateway, metrics, log, grpc_address, http_url, policy, stub, states)
            for name in states if wait else ():
                await running.available(name)
            yield running
    finally:
        await http_server.stop(1)
        await grpc_server.stop(1)
        await gate.close()


def request(text: str = "hello", *tags: str, **more: object) -> gateway_pb2.GenerateRequest:
    message = common_pb2.ChatMessage(role="user", content=text)
    return gateway_pb2.GenerateRequest(messages=[message], privacy_tags=tags, **more)  # type: ignore[arg-type]  # fields of the message


@dataclass
class Collected:
    """One whole answer."""

    decision: gateway_pb2.Decision
    text: str
    completion: gateway_pb2.Completion


async def collect(running: Rig, message: gateway_pb2.GenerateRequest, timeout_s: float = 20) -> Collected:
    """Raises AioRpcError as a client sees it."""
    events = [event async for event in running.stub.Generate(message, timeout=timeout_s)]
    assert events[0].WhichOneof("event") == "decision"
    assert events[-1].WhichOneof("event") == "completion"
    return Collected(events[0].decision, "".join(event.delta.text for event in events[1:-1]), events[-1].completion)


def _backends(
    edge: str | None,
    cloud: str | None,
    openai: str | None,
    key: str,
    cloud_model: str,
    office: PermitOffice,
    observe: Callable[[BackendState], None],
) -> Sequence[Backend]:
    backends: list[Backend] = []
    if edge is not None:
        backends.append(EdgeGrpcBackend("edge", edge, "", office, observe))
    if cloud is not None:
        backends.append(CloudGrpcBackend("cloud", cloud, cloud_model, "", office, observe))
    if openai is not None:
        backends.append(CloudOpenAiBackend("cloud", openai, ApiKey(key), cloud_model, "", office, observe))
    return backends
