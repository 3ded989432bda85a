"""Requests with a canary each, and every way to send them: what the leak test throws at a gateway."""

import asyncio
import itertools
import random
import string
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import grpc
import httpx
from flashgate.v1 import common_pb2, gateway_pb2, gateway_pb2_grpc

from router.privacy.detect import KINDS
from router.privacy.tags import BUILT_IN

Way = Literal["grpc", "http", "sse"]
WAYS: tuple[Way, ...] = ("grpc", "http", "sse")

# What a caller shows the gateway, and nobody else may see.
KEY = "quokkakeyforthegatewayalone"
CREDENTIALS = (("authorization", f"Bearer {KEY}"),)

# One text for each kind of identifier that the gateway claims to find. Valid by checksum, owned by nobody.
IDENTIFIERS = {
    "api_key": "sk-proj-Zx8kQ2vLr7TnB4wYc9MdP1sHfJ6uGaE3",
    "email": "jane.roe@example.com",
    "iban": "DE89 3704 0044 0532 0130 00",
    "ip_address": "203.0.113.77",
    "password": "password: kR7!xo2Lm9",
    "payment_card": "4111 1111 1111 1111",
    "phone": "+44 20 7946 0958",
    "private_key": "-----BEGIN RSA PRIVATE KEY-----",
    "us_ssn": "219-09-9999",
}


@dataclass(frozen=True, slots=True)
class Probe:
    """One kind of request. `is_free`: nothing forbids the cloud to it; read from the design, not from the code."""

    name: str
    tags: tuple[str, ...] = ()
    content: str = ""
    max_reach: common_pb2.Reach.ValueType = common_pb2.REACH_UNSPECIFIED
    is_free: bool = False


FREE = (
    Probe("untagged", is_free=True),
    Probe("tag public", ("public",), is_free=True),
    Probe("tag public, other case", (" PUBLIC ",), is_free=True),
)
FORBIDDEN = (
    *(Probe(f"tag {tag}", (tag,)) for tag in sorted(BUILT_IN.keys() - {"public"})),
    Probe("unknown tag", ("no-such-tag",)),
    Probe("unknown tag beside public", ("public", "no-such-tag")),
    Probe("tag phi beside public", ("public", "phi")),
    Probe("tag phi, other case", (" PHI ",)),
    Probe("tag public in letters that only look so", ("publiс",)),
    Probe("caller allows fleet only", max_reach=common_pb2.REACH_FLEET),
    Probe("caller allows the masked cloud only", ("public",), max_reach=common_pb2.REACH_CLOUD_MASKED),
    *(Probe(f"detected {kind}", content=text) for kind, text in IDENTIFIERS.items()),
    Probe("detected email in a request tagged public", ("public",), IDENTIFIERS["email"]),
)
PROBES = (*FREE, *FORBIDDEN)

_LETTERS = random.Random("canaries")


def every_kind_is_probed() -> bool:
    """A detector that is added needs a probe here."""
    return {kind.name for kind in KINDS} == IDENTIFIERS.keys()


@dataclass(frozen=True, slots=True)
class Sent:
    """One request that was sent. `outcome`: the lane that began to answer, and the error it ended in, if any."""

    probe: Probe
    way: Way
    canary: str
    lane: str
    error: str = ""


def all_requests(probes: Sequence[Probe] = PROBES, ways: Sequence[Way] = WAYS) -> Iterator[tuple[Probe, Way, str]]:
    """Every probe in every way, with a canary of its own: letters only, so that no detector takes it for something."""
    for probe, way in itertools.product(probes, ways):
        yield probe, way, "quokka" + "".join(_LETTERS.choices(string.ascii_lowercase, k=14))


class Sender:
    """The clients of one gateway."""

    def __init__(self, channel: grpc.aio.Channel, http: httpx.AsyncClient) -> None:
        self.gateway: gateway_pb2_grpc.GatewayServiceAsyncStub = gateway_pb2_grpc.GatewayServiceStub(channel)
        self._http = http

    async def send(
        self, probe: Probe, way: Way, canary: str, *, ttft_ms: int = 0, max_tokens: int = 2, timeout_s: float = 60
    ) -> Sent:
        """Send one request to its end."""
        if way == "grpc":
            request = grpc_request(probe, canary, ttft_ms, max_tokens)
            return await self._over_grpc(probe, canary, request, timeout_s)
        return await self._over_http(probe, way, canary, ttft_ms, max_tokens, timeout_s)

    async def _over_grpc(
        self, probe: Probe, canary: str, request: gateway_pb2.GenerateRequest, timeout_s: float
    ) -> Sent:
        lane = ""
        try:
            async for response in self.gateway.Generate(request, timeout=timeout_s, metadata=CREDENTIALS):
                if response.HasField("decision"):
                    lane = gateway_pb2.Lane.Name(response.decision.lane).removeprefix("LANE_").lower()
        except grpc.aio.AioRpcError as exc:
            return Sent(probe, "grpc", canary, lane, exc.code().name)
        return Sent(probe, "grpc", canary, lane)

    async def _over_http(
        self, probe: Probe, way: Way, canary: str, ttft_ms: int, max_tokens: int, timeout_s: float
    ) -> Sent:
        headers = list(CREDENTIALS)
        if _fits_header(probe):
            headers.append(("X-Flashgate-Tags", ",".join(probe.tags)))
        body = http_body(probe, canary, max_tokens, stream=way == "sse")
        if ttft_ms:
            headers.append(("X-Flashgate-Ttft-Ms", str(ttft_ms)))
        lane = ""
        try:
            async with self._http.stream(
                "POST", "/v1/chat/completions", json=body, headers=headers, timeout=timeout_s
            ) as answer:
                lane = answer.headers.get("x-flashgate-lane", "")
                text = (await answer.aread()).decode()
        except httpx.HTTPError as exc:
            return Sent(probe, way, canary, lane, type(exc).__name__)
        if answer.is_error:
            return Sent(probe, way, canary, lane, str(answer.status_code))
        is_whole = way == "http" or text.endswith("data: [DONE]\n\n")
        return Sent(probe, way, canary, lane, "" if is_whole else "broken stream")


def _fits_header(probe: Probe) -> bool:
    """A header lists tags; what cannot stand in one goes into the body."""
    return bool(probe.tags) and all(tag.isascii() and tag == tag.strip() for tag in probe.tags)


def prompt(probe: Probe, canary: str) -> str:
    return f"The {canary} wrote a letter. {probe.content} What does it say?"


def grpc_request(probe: Probe, canary: str, ttft_ms: int = 0, max_tokens: int = 2) -> gateway_pb2.GenerateRequest:
    request = gateway_pb2.GenerateRequest(
        messages=[common_pb2.ChatMessage(role="user", content=prompt(probe, canary))],
        sampling=common_pb2.Sampling(max_tokens=max_tokens),
        privacy_tags=probe.tags,
        max_reach=probe.max_reach,
    )
    if ttft_ms:
        request.latency.ttft.FromMilliseconds(ttft_ms)
    return request


def http_body(probe: Probe, canary: str, max_tokens: int, *, stream: bool) -> dict[str, Any]:
    flashgate: dict[str, Any] = {}
    if probe.tags and not _fits_header(probe):
        flashgate["privacy_tags"] = list(probe.tags)
    if probe.max_reach:
        flashgate["max_reach"] = common_pb2.Reach.Name(probe.max_reach).removeprefix("REACH_").lower()
    return {
        "model": "any",
        "messages": [{"role": "user", "content": prompt(probe, canary)}],
        "max_tokens": max_tokens,
        "stream": stream,
        **({"flashgate": flashgate} if flashgate else {}),
    }


@asynccontextmanager
async def sender(ready: dict[str, str]) -> AsyncIterator[Sender]:
    """Clients of the gateway whose ready line says `ready`; no proxy from the environment."""
    options = (("grpc.enable_http_proxy", 0),)
    async with (
        grpc.aio.insecure_channel(ready["grpc"], options=options) as channel,
        httpx.AsyncClient(base_url=f"http://{ready['http']}", trust_env=False) as http,
    ):
        yield Sender(channel, http)


async def send_all(
    sender: Sender, requests: Sequence[tuple[Probe, Way, str]], *, at_once: int = 12, **options: Any
) -> list[Sent]:
    """Send all. An edge's queue holds 16: with many more at once, some would be refused for that alone."""
    limit = asyncio.Semaphore(at_once)

    async def one(probe: Probe, way: Way, canary: str) -> Sent:
        async with limit:
            return await sender.send(probe, way, canary, **options)

    return await asyncio.gather(*(one(*request) for request in requests))
