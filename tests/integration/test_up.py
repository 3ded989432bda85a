"""`flashgate up` for real: one command, one ready line, both lanes, and nothing left when it ends."""

import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import openai
import pytest
from flashgate.v1 import common_pb2, gateway_pb2, gateway_pb2_grpc

from tests.integration.harness import Process, Processes, command, eventually, get

ANY_PORTS = [
    word
    for option in ("grpc", "http", "edge", "edge-metrics", "cloud", "cloud-metrics")
    for word in (f"--{option}-port", "0")
]


@dataclass(frozen=True, slots=True)
class Up:
    """A running `flashgate up` that built its own model."""

    process: Process
    data: Path
    record: Path


def start(processes: Processes, *options: str, env: dict[str, str] | None = None) -> Process:
    return processes.start([command("flashgate"), "up", *ANY_PORTS, "--memory", "300MB", *options], env)


@pytest.fixture(scope="module")
def up(module_processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Started as a newcomer would: no model, no policy; the data directory from the environment."""
    home = tmp_path_factory.mktemp("home")
    record = home / "sent.jsonl"
    process = start(module_processes, "--cloud-record", str(record), env={"XDG_DATA_HOME": str(home)})
    process.ready()
    yield Up(process, home / "flashgate", record)
    process.send_group(signal.SIGTERM)
    process.wait()


def descendants(pid: int) -> list[int]:
    """All running processes below `pid`."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except FileNotFoundError:
        return []
    return [*children, *(below for child in children for below in descendants(child))]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def until_gone(pids: list[int]) -> None:
    eventually(lambda: not any(map(is_running, pids)), "the end of all children")


def child_of(up: Process, name: str) -> int:
    """The direct child that runs `name`."""
    for pid in descendants(up.pid):
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if any(Path(word).name == name for word in words[:2]):
            return pid
    raise AssertionError(f"no {name} among the children")


def generate(address: str, *tags: str, ttft_ms: int = 0) -> list[gateway_pb2.GenerateResponse]:
    request = gateway_pb2.GenerateRequest(
        messages=[common_pb2.ChatMessage(role="user", content="Say something.")],
        sampling=common_pb2.Sampling(max_tokens=4),
        privacy_tags=tags,
    )
    if ttft_ms:
        request.latency.ttft.FromMilliseconds(ttft_ms)
    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        return list(gateway_pb2_grpc.GatewayServiceStub(channel).Generate(request, timeout=60))


def test_the_ready_line_names_every_address(up: Up) -> None:
    (line,) = up.process.lines
    assert line.startswith("ready flashgate ")
    ready = up.process.ready()
    assert list(ready) == [
        "gateway-grpc", "http", "edge", "edge-metrics", "cloud", "cloud-metrics", "model", "policy",
    ]  # fmt: skip
    assert get(f"http://{ready['http']}/healthz")
    assert "flashgate_edge_" in get(f"http://{ready['edge-metrics']}/metrics")
    assert 'lane="cloud"' in get(f"http://{ready['cloud-metrics']}/metrics")
    for name in ("gateway-grpc", "edge", "cloud"):
        host, _, port = ready[name].rpartition(":")
        socket.create_connection((host, int(port)), timeout=10).close()
    assert ready["policy"].startswith("sha256:")


def test_the_first_request_is_served_on_the_device_over_grpc(up: Up) -> None:
    first, *_, last = generate(up.process.ready()["gateway-grpc"], "phi")
    assert first.decision.lane == gateway_pb2.LANE_EDGE
    assert first.decision.model == up.process.ready()["model"]
    assert last.completion.usage.completion_tokens > 0


def test_the_openai_client_is_served(up: Up) -> None:
    client = openai.OpenAI(
        base_url=f"http://{up.process.ready()['http']}/v1",
        api_key="none",
        max_retries=0,
        http_client=openai.DefaultHttpxClient(trust_env=False),
    )
    with client:
        answer = client.chat.completions.create(
            model="any", messages=[{"role": "user", "content": "hello"}], max_tokens=4
        )
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


def test_what_reaches_the_cloud_is_recorded_where_the_user_said(up: Up) -> None:
    """No edge has its first token in a millisecond."""
    first, *_ = generate(up.process.ready()["gateway-grpc"], "public", ttft_ms=1)
    assert first.decision.lane == gateway_pb2.LANE_CLOUD
    assert "Say something." in up.record.read_text()


def test_the_hint_says_how_to_ask(up: Up) -> None:
    said = up.process.stderr()
    assert f'flashgate ask "Why is the sky blue?" --address {up.process.ready()["gateway-grpc"]}' in said
    assert "noise" in said


@pytest.mark.parametrize("name", ["flashgate-edge", "flashgate-cloud-stub", "flashgate"])
def test_a_child_that_is_killed_comes_back_at_its_address(up: Up, name: str) -> None:
    address = up.process.ready()["gateway-grpc"]
    old = child_of(up.process, name)
    os.kill(old, signal.SIGKILL)
    until_gone([old])

    def both_lanes_answer() -> bool:
        try:
            private, public = generate(address, "phi"), generate(address, "public", ttft_ms=1)
        except grpc.RpcError:
            return False
        lanes = (private[0].decision.lane, public[0].decision.lane)
        return lanes == (gateway_pb2.LANE_EDGE, gateway_pb2.LANE_CLOUD)

    eventually(both_lanes_answer, f"both lanes after the end of {name}", 40)
    assert child_of(up.process, name) != old
    assert '"event": "child_ended"' in up.process.stderr()
    assert len(up.process.lines) == 1


def test_ctrl_c_leaves_nothing_and_the_next_start_reuses_the_model(
    processes: Processes, up: Up, small_pack: Path
) -> None:
    (pack,) = (path for path in (up.data / "models").iterdir() if path.is_dir())
    built = (pack / "manifest.json").stat()
    process = start(processes, "--data", str(up.data))
    process.ready()
    children = descendants(process.pid)
    assert len(children) >= 4  # With the engine.
    process.send_group(signal.SIGINT)
    assert process.wait() == 0
    assert not any(map(is_running, children))
    assert "first run" not in process.stderr()
    assert (pack / "manifest.json").stat() == built


def test_killed_it_takes_its_children_along(processes: Processes, small_pack: Path) -> None:
    process = start(processes, "--model", str(small_pack))
    process.ready()
    children = descendants(process.pid)
    process.send(signal.SIGKILL)
    process.wait()
    until_gone(children)


def test_a_stuck_child_is_killed(processes: Processes, small_pack: Path) -> None:
    process = start(processes, "--model", str(small_pack))
    process.ready()
    children = descendants(process.pid)
    os.kill(child_of(process, "flashgate-cloud-stub"), signal.SIGSTOP)
    process.send(signal.SIGHUP)
    eventually(lambda: '"event": "stopping"' in process.stderr(), "the first signal's effect")
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    assert '"event": "child_killed"' in process.stderr()
    assert not any(map(is_running, children))


def test_a_port_in_use_is_named_before_anything_is_built(processes: Processes, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = start(processes, "--edge-metrics-port", port, "--data", str(tmp_path / "data"))
        assert process.wait() == 1
    (line,) = process.stderr().splitlines()
    assert f"--edge-metrics-port {port}" in line
    assert not (tmp_path / "data").exists()


def test_a_faulty_policy_is_named_before_anything_is_built(processes: Processes, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nsurprise: true\n")
    process = start(processes, "--policy", str(policy), "--data", str(tmp_path / "data"))
    assert process.wait() == 1
    assert f"flashgate: error: {policy}:" in process.stderr()
    assert not (tmp_path / "data").exists()


def test_a_model_that_is_none_ends_the_start(processes: Processes, tmp_path: Path) -> None:
    process = start(processes, "--model", str(tmp_path / "missing"))
    assert process.wait() == 1
    assert str(tmp_path / "missing") in process.stderr()
    assert process.stderr().splitlines()[-1].startswith("flashgate: error: the edge node ended with status 1")
    assert process.lines == []
