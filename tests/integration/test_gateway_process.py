"""`flashgate serve` and `flashgate ask` as processes, in front of the real cloud stub."""

import json
import logging
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from router.cli import main
from tests.integration.harness import Process, Processes, command, eventually, get

CANARY = "CANARY-4711"


@pytest.fixture(scope="module")
def stub(module_processes: Processes) -> str:
    return module_processes.cloud_stub().ready()["grpc"]


def serve(processes: Processes, *options: str) -> Process:
    argv = [command("flashgate"), "serve", "--grpc-port", "0", "--http-port", "0", *options]
    return processes.start(argv)


@pytest.fixture(scope="module")
def gateway(module_processes: Processes, stub: str) -> str:
    """Address of a gateway with a cloud and without an edge."""
    return serve(module_processes, "--no-edge", "--cloud", stub).ready()["grpc"]


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    argv = [command("flashgate"), *arguments]
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60, check=False)


def test_ask_streams_the_answer_and_says_the_route(gateway: str) -> None:
    done = run("ask", "Why is the sky blue?", "--address", gateway, "--tags", "public", "--max-tokens", "5")
    assert done.returncode == 0
    assert done.stdout == "This is flashgate's cloud stub\n"
    assert done.stderr.startswith("route: cloud (cloud) | model ")
    assert done.stderr.count("\n") == 1
    for part in ("rule ", "reasons ", "floor cloud", "ttft ", "tokens "):
        assert part in done.stderr


def test_ask_reads_stdin_and_explains_without_sending(gateway: str) -> None:
    done = run("ask", "-", "--address", gateway, "--explain", stdin=f"{CANARY} ann.lee@example.org")
    assert done.returncode == 0
    assert done.stdout.startswith("would be refused: no_backend_within_floor")
    assert "cloud (cloud): not allowed: floor_forbids_cloud" in done.stdout
    assert CANARY not in done.stdout + done.stderr


def test_ask_writes_json(gateway: str) -> None:
    done = run("ask", "hi", "--address", gateway, "--json", "--max-tokens", "2", "--ttft-ms", "60000")
    answer = json.loads(done.stdout)
    assert answer["text"] == "This is"
    assert answer["decision"]["lane"] == "LANE_CLOUD"
    explained = json.loads(run("ask", "hi", "--address", gateway, "--json", "--explain").stdout)
    assert explained["decision"]["backend"] == "cloud"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tags", "phi"], "[NO_BACKEND_WITHIN_FLOOR]"),
        (["--tags", ","], "--tags names no tag; leave it out if the request has none"),
        (["--temperature", "9"], "temperature: must be from 0 to 2 [INVALID_VALUE]"),
        (["--max-reach", "device"], "[NO_BACKEND_WITHIN_FLOOR]"),
    ],
)
def test_ask_says_a_refusal_in_one_line(gateway: str, options: Sequence[str], message: str) -> None:
    done = run("ask", CANARY, "--address", gateway, *options)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("flashgate: error: ")
    assert done.stderr.endswith(f"{message}\n")
    assert done.stderr.count("\n") == 1
    assert CANARY not in done.stderr


def test_ask_without_a_gateway_says_what_to_do() -> None:
    done = run("ask", "hi", "--address", "127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr == "flashgate: error: no gateway answers at 127.0.0.1:1; `flashgate up` starts one\n"


@pytest.fixture
def own_logging() -> Iterator[None]:
    """What runs in this process leaves the process's logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(capture=False)


@pytest.mark.usefixtures("own_logging")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--no-edge"], "nothing could answer"),
        (["--no-edge", "--edge", "127.0.0.1:1"], "contradict"),
        (["--policy", "/nonexistent.yaml"], "/nonexistent.yaml"),
        (["--api-keys", "/nonexistent"], "/nonexistent"),
        (["--cloud-openai", "ftp://x"], "--cloud-openai"),
        (["--cloud-openai", "https://x/v1", "--cloud-key-env", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE"),
        (["--host", "192.0.2.1"], "192.0.2.1"),
    ],
)
def test_serve_says_a_bad_configuration_in_one_line(
    options: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--grpc-port", "0", "--http-port", "0", *options]) == 1
    written = capsys.readouterr()
    assert written.out == ""
    error = written.err.splitlines()[-1]
    assert error.startswith("flashgate: error: ")
    assert message in error


@pytest.mark.parametrize(
    "options",
    [
        ["--grpc-port", "70000"],
        ["--edge", "nowhere"],
        ["--cloud", "a:1", "--cloud-openai", "https://x/v1"],
        ["--drain-seconds", "-1"],
    ],
)
def test_serve_refuses_wrong_usage(options: Sequence[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", *options])
    assert caught.value.code == 2


def test_port_in_use_is_named(processes: Processes) -> None:
    port = serve(processes).ready()["http"].rpartition(":")[2]
    done = run("serve", "--grpc-port", "0", "--http-port", port)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr.splitlines()[-1]


POLICY = """\
version: 1
description: A policy of one default.
untagged: {untagged}
default:
  prefer: cloud
  reason: test
"""


def test_policy_is_reloaded_live_and_a_bad_file_keeps_the_old_one(
    processes: Processes, tmp_path: Path, stub: str
) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY.format(untagged="cloud"))
    gateway = serve(processes, "--no-edge", "--cloud", stub, "--policy", str(path))
    address = gateway.ready()
    assert run("ask", "hi", "--address", address["grpc"], "--max-tokens", "1").returncode == 0

    replacement = tmp_path / "new.yaml"
    replacement.write_text(POLICY.format(untagged="device"))
    replacement.replace(path)

    def refused() -> bool:
        return run("ask", "hi", "--address", address["grpc"]).returncode == 1

    eventually(refused, "the stricter policy")

    path.write_text("version: 1\nuntagged: moon\n")
    gateway.send(signal.SIGHUP)
    eventually(lambda: "policy_refused" in gateway.stderr(), "the refusal in the log")
    assert refused()
    metrics = get(f"http://{address['http']}/metrics")
    assert 'flashgate_policy_reloads_total{outcome="refused"}' in metrics
    assert 'flashgate_policy_reloads_total{outcome="loaded"} 2.0' in metrics
    assert metrics.count("flashgate_policy_info{") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_answer_ends_before_the_process_does(processes: Processes, number: signal.Signals) -> None:
    stub = processes.cloud_stub("--tokens-per-second", "20").ready()["grpc"]
    gateway = serve(processes, "--no-edge", "--cloud", stub)
    address = gateway.ready()["grpc"]
    client = processes.start(
        [command("flashgate"), "ask", CANARY, "--address", address, "--tags", "public", "--max-tokens", "30"]
    )
    eventually(lambda: "cloud" in get_in_flight(gateway), "the request at the cloud")
    gateway.send(number)
    assert client.wait() == 0
    assert gateway.wait() == 0
    log = gateway.stderr()
    assert '"outcome": "answered"' in log
    assert CANARY not in log
    for line in log.splitlines():
        json.loads(line)


def get_in_flight(gateway: Process) -> str:
    """`cloud` once a request is running."""
    http = gateway.ready()["http"]
    return "cloud" if "flashgate_requests_in_flight 1.0" in get(f"http://{http}/metrics") else ""
