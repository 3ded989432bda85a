"""Nothing that a floor keeps from the cloud gets there, and no content gets into logs, metrics or explanations.

Real processes. Every tag, every detected identifier, an unknown tag and the caller's own limit, each over gRPC, HTTP
and SSE, in every state of the lanes. Each request holds a canary; the cloud stub records all that it receives.
"""

import asyncio
import json
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from flashgate.v1 import edge_pb2, gateway_pb2, gateway_pb2_grpc

from router.cli import main
from tests.integration.harness import Process, Processes, eventually, until_ready
from tests.integration.leak_probes import (
    FORBIDDEN,
    FREE,
    KEY,
    PROBES,
    WAYS,
    Probe,
    Sent,
    all_requests,
    every_kind_is_probed,
    grpc_request,
    http_body,
    send_all,
    sender,
)
from tests.integration.leak_stage import BROKEN_DETECTOR, LEAKING, NO_EDGE, Stage, StatusCall

CLOUD_FIRST = """\
version: 1
rules:
  - name: cloud-first
    when: "true"
    prefer: cloud
    reason: cloud_first
default: {prefer: cloud, reason: cloud_first}
"""
# No request has so many tags, so the condition has no value where it gets that far: for requests of two tokens, as
# those of this test are. One that has no value for any request is refused when the policy is loaded.
NO_VALUE = CLOUD_FIRST.replace('"true"', "request.max_tokens != 2 || request.tags[99] == 'public'")
# For states of which there are many.
SOME = (FREE[0], *(probe for probe in FORBIDDEN if probe.name in ("tag phi", "unknown tag", "detected email")))
ALL_FREE = {f"{probe.name} over {way}" for probe in FREE for way in WAYS}


@pytest.fixture(scope="module")
def stage(module_processes: Processes, small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(module_processes, small_pack, tmp_path_factory.mktemp("leaks"))


@pytest.fixture(scope="module")
def cloud_first(stage: Stage) -> Iterator[Process]:
    """A gateway whose only rule prefers the cloud."""
    with stage.gateway(stage.edge.ready()["grpc"], stage.policy("cloud_first", CLOUD_FIRST)) as gateway:
        until_ready(gateway, "edge", "cloud")
        yield gateway


def send(gateway: Process, probes: tuple[Probe, ...] = PROBES, **options: int) -> list[Sent]:
    async def run() -> list[Sent]:
        async with sender(gateway.ready()) as clients:
            return await send_all(clients, list(all_requests(probes)), **options)

    return asyncio.run(run())


def lanes(sent: list[Sent], *, free: bool) -> set[tuple[str, str]]:
    """How requests ended: the lane that answered and the error, if any."""
    return {(one.lane, one.error) for one in sent if one.probe.is_free is free}


def test_every_kind_of_identifier_is_probed() -> None:
    assert every_kind_is_probed()


def test_the_stage_would_see_a_leak(stage: Stage) -> None:
    """The positive control: a gateway that was made to leak is caught, in the cloud and in the logs."""
    # Not with the built-in policy, which tests itself when it is loaded and would refuse to start.
    with stage.gateway(NO_EDGE, stage.policy("leaking", CLOUD_FIRST), LEAKING) as gateway:
        until_ready(gateway, "cloud")
        sent = send(gateway, (Probe("tag phi", ("phi",)), Probe("detected email", content="jane@example.com")))
        leaks = stage.leaks(sent)
        for one in sent:
            assert any(leak.startswith("cloud: ") and one.canary in leak for leak in leaks)
            assert any(leak.startswith("python") and one.canary in leak for leak in leaks)


def test_cloud_preferred_by_the_rule(stage: Stage, cloud_first: Process) -> None:
    sent = send(cloud_first)
    assert stage.leaks(sent) == []
    assert stage.reached_the_cloud(sent) == ALL_FREE
    assert lanes(sent, free=True) == {("cloud", "")}
    assert lanes(sent, free=False) == {("edge", "")}


def test_edge_up_and_preferred(stage: Stage) -> None:
    with stage.gateway(stage.edge.ready()["grpc"]) as gateway:
        until_ready(gateway, "edge", "cloud")
        sent = send(gateway)
        assert stage.leaks(sent) == []
        assert lanes(sent, free=False) == {("edge", "")}


def test_edge_slow(stage: Stage) -> None:
    """No edge has its first token in a millisecond."""
    with stage.gateway(stage.edge.ready()["grpc"]) as gateway:
        until_ready(gateway, "edge", "cloud")
        send(gateway, FREE)  # A prediction needs measured rates.
        sent = send(gateway, ttft_ms=1)
        assert stage.leaks(sent) == []
        assert stage.reached_the_cloud(sent) == ALL_FREE
        assert lanes(sent, free=False) == {("edge", "")}


def test_edge_down(stage: Stage) -> None:
    with stage.gateway(NO_EDGE) as gateway:
        until_ready(gateway, "cloud")
        sent = send(gateway)
        assert stage.leaks(sent) == []
        assert stage.reached_the_cloud(sent) == ALL_FREE
        assert {lane for lane, _ in lanes(sent, free=False)} == {""}


def test_edge_stuck(stage: Stage) -> None:
    """It accepts connections and answers nothing: whoever waits for it must not be sent elsewhere."""
    victim = stage.victim
    with stage.gateway(stage.victim.ready()["grpc"]) as gateway:
        until_ready(gateway, "edge", "cloud")
        victim.send_group(signal.SIGSTOP)
        try:
            sent = send(gateway, FORBIDDEN, timeout_s=1, at_once=200)
        finally:
            victim.send_group(signal.SIGCONT)
        assert all(one.error for one in sent)
        assert stage.leaks(sent) == []


@pytest.mark.parametrize(
    ("first", "way"),
    [("tag phi", "grpc"), ("detected email", "http"), ("unknown tag", "sse")],
)
def test_engine_killed_mid_stream(stage: Stage, first: str, way: str) -> None:
    """One request is being answered and all others wait for their first token when the engine dies."""
    with stage.gateway(stage.victim.ready()["grpc"]) as gateway:
        until_ready(gateway, "edge", "cloud")
        sent = asyncio.run(_send_and_kill(stage, gateway, first, way))
        assert stage.leaks(sent) == []
        # A plain answer says its lane in headers, which come when it is whole.
        assert (sent[0].probe.name, sent[0].lane) == (first, "" if way == "http" else "edge")
        assert {one.lane for one in sent} <= {"edge", ""}
        assert all(one.error for one in sent)


async def _send_and_kill(stage: Stage, gateway: Process, first: str, way: str) -> list[Sent]:
    """Send all that is kept from the cloud, `first` at the head of the edge's queue; kill the engine.

    The engine is held while the others queue up, so that the first answer cannot end meanwhile.
    """
    requests = sorted(all_requests(FORBIDDEN), key=lambda request: (request[0].name, request[1]) != (first, way))
    async with sender(gateway.ready()) as clients, stage.victims_status() as status:
        sending = [asyncio.create_task(clients.send(*requests[0], max_tokens=3000))]
        await until(status, lambda edge: edge.running == 1 and edge.pending_completion_tokens < 3000)
        stage.signal_engine(signal.SIGSTOP)
        sending += [asyncio.create_task(clients.send(*request)) for request in requests[1:]]
        await until(status, lambda edge: edge.queue_depth == len(requests) - 1)
        stage.signal_engine(signal.SIGKILL)
        return await asyncio.gather(*sending)


async def until(status: StatusCall, condition: Callable[[edge_pb2.EdgeServiceGetStatusResponse], bool]) -> None:
    """Wait until the edge's status is as wanted."""
    async with asyncio.timeout(30):
        while not condition(await status()):
            await asyncio.sleep(0.005)


def test_detector_broken(stage: Stage) -> None:
    """Its failure counts as the worst finding, so that not even a public request leaves; its message says content."""
    policy = stage.policy("detector_broken", CLOUD_FIRST)
    with stage.gateway(stage.edge.ready()["grpc"], policy, program=BROKEN_DETECTOR) as gateway:
        until_ready(gateway, "edge", "cloud")
        sent = send(gateway)
        assert stage.leaks(sent) == []
        assert stage.reached_the_cloud(sent) == set()
        assert lanes(sent, free=True) == lanes(sent, free=False) == {("edge", "")}


def test_rule_without_a_value(stage: Stage) -> None:
    """A condition that fails at run time closes the cloud to that request, whatever its floor."""
    with stage.gateway(stage.edge.ready()["grpc"], stage.policy("no_value", NO_VALUE)) as gateway:
        until_ready(gateway, "edge", "cloud")
        sent = send(gateway)
        assert stage.leaks(sent) == []
        assert stage.reached_the_cloud(sent) == set()


def test_policy_broken_on_reload(stage: Stage) -> None:
    """The gateway goes on by the policy it had: neither more open nor closed."""
    path = stage.policy("reloaded", CLOUD_FIRST)
    with stage.gateway(stage.edge.ready()["grpc"], path) as gateway:
        until_ready(gateway, "edge", "cloud")
        for broken in ("", "\x00", CLOUD_FIRST + "surprise: true\n"):
            path.write_text(broken)
            gateway.send(signal.SIGHUP)
            eventually(lambda: stage.status(gateway).policy_error, f"{broken!r} to be refused")
            sent = send(gateway, SOME)
            assert stage.leaks(sent) == []
            assert lanes(sent, free=True) == {("cloud", "")}
            assert lanes(sent, free=False) == {("edge", "")}
            path.write_text(CLOUD_FIRST)
            gateway.send(signal.SIGHUP)
            eventually(lambda: not stage.status(gateway).policy_error, "the good policy to be taken again")
        path.unlink()
        eventually(lambda: stage.status(gateway).policy_error, "the missing policy to be noticed")
        sent = send(gateway)
        assert stage.leaks(sent) == []
        assert stage.reached_the_cloud(sent) == ALL_FREE


@pytest.mark.parametrize("over_openai", [False, True], ids=["grpc", "openai"])
def test_the_cloud_is_told_nothing_about_the_caller(stage: Stage, over_openai: bool) -> None:
    """Neither tags nor credentials nor bounds: the request's own words, and what a client has to say."""
    policy = stage.policy("told", CLOUD_FIRST)
    with stage.gateway(stage.edge.ready()["grpc"], policy, over_openai=over_openai) as gateway:
        until_ready(gateway, "edge", "cloud")
        sent = send(gateway, (*FREE, *SOME[1:]), ttft_ms=50_000)
    assert stage.leaks(sent) == []
    assert stage.reached_the_cloud(sent) == ALL_FREE
    entries = stage.received(sent)
    assert len(entries) == len(ALL_FREE)
    for entry in entries:
        assert KEY not in str(entry)
        assert "public" not in str(entry).lower()
        assert "x-flashgate" not in str(entry.get("headers", "")).lower()
        body = json.loads(entry["body"]) if over_openai else entry["request"]
        allowed = {"messages", "model", "stream", "stream_options", "max_tokens", "max_completion_tokens"}
        assert body.keys() <= allowed | {"request_id", "sampling"}


@pytest.mark.parametrize("over_openai", [False, True], ids=["grpc", "openai"])
def test_a_proxy_of_the_environment_sees_nothing(stage: Stage, over_openai: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        names = ("grpc_proxy", "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        env = {**dict.fromkeys(names, url), "no_proxy": "", "NO_PROXY": ""}
        policy = stage.policy("proxy", CLOUD_FIRST)
        with stage.gateway(stage.edge.ready()["grpc"], policy, over_openai=over_openai, env=env) as gateway:
            until_ready(gateway, "edge", "cloud")
            sent = send(gateway, SOME)
        assert lanes(sent, free=True) == {("cloud", "")}
        assert lanes(sent, free=False) == {("edge", "")}
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_explanations_hold_no_content_and_send_nothing(stage: Stage, cloud_first: Process) -> None:
    sent = []
    with grpc.insecure_channel(cloud_first.ready()["grpc"], options=(("grpc.enable_http_proxy", 0),)) as channel:
        gateway = gateway_pb2_grpc.GatewayServiceStub(channel)
        for probe, way, canary in all_requests(PROBES, ("grpc",)):
            explained = gateway.Explain(gateway_pb2.ExplainRequest(request=grpc_request(probe, canary)), timeout=20)
            assert explained.HasField("decision"), probe
            stage.said.append(str(explained))
            sent.append(Sent(probe, way, canary, ""))
    assert stage.leaks(sent) == []
    assert stage.reached_the_cloud(sent) == set()


@pytest.mark.parametrize("options", [("--edge", "up", "--json"), ("--edge", "down")], ids=["json", "text"])
def test_policy_explain_holds_no_content(
    options: tuple[str, ...], stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = stage.policy("explained", CLOUD_FIRST)
    path = tmp_path / "request.json"
    sent = []
    for probe, way, canary in all_requests(PROBES, ("http",)):
        body = http_body(probe, canary, 2, stream=False)
        body["flashgate"] = {**body.get("flashgate", {}), "privacy_tags": list(probe.tags)}
        path.write_text(json.dumps(body))
        assert main(["policy", "explain", str(policy), str(path), *options]) == 0
        said = "".join(capsys.readouterr())
        assert "cloud" in said
        stage.said.append(said)
        sent.append(Sent(probe, way, canary, ""))
    assert stage.leaks(sent) == []
    assert stage.reached_the_cloud(sent) == set()
