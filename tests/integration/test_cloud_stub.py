"""The cloud stub as a real process: both protocols, every scenario, hostile input, the record, and its own end."""

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import openai
import pytest
from flashgate.v1 import cloud_pb2, cloud_pb2_grpc, common_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from tests.integration.harness import Process, Processes, command, eventually, get

TEXT = "one two three four five six"
CANARY = "canary-7b1f"


class Stub:
    """One running stub and its clients."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.ready = process.ready()
        self.url = f"http://{self.ready['http']}"
        self.channel = grpc.insecure_channel(self.ready["grpc"], options=(("grpc.enable_http_proxy", 0),))
        self.cloud = cloud_pb2_grpc.CloudServiceStub(self.channel)
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=20)
        self.openai = openai.OpenAI(
            base_url=f"{self.url}/v1",
            api_key="sk-test",
            max_retries=0,
            http_client=openai.DefaultHttpxClient(trust_env=False),
        )

    def close(self) -> None:
        self.channel.close()
        self.http.close()
        self.openai.close()

    def ask(self, content: str = "hello", **sampling: Any) -> list[cloud_pb2.CloudServiceGenerateResponse]:
        return list(self.cloud.Generate(grpc_request(content, **sampling), timeout=20))

    def post(self, **body: Any) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json={"messages": MESSAGES, **body})


MESSAGES: list[Any] = [{"role": "user", "content": "hello there"}]


def grpc_request(content: str = "hello", **sampling: Any) -> cloud_pb2.CloudServiceGenerateRequest:
    return cloud_pb2.CloudServiceGenerateRequest(
        request_id="req-1",
        messages=[common_pb2.ChatMessage(role="user", content=content)],
        sampling=common_pb2.Sampling(**sampling),
    )


def reason_of(error: grpc.RpcError) -> str:
    """The ErrorInfo's reason."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # a client's RpcError is a Call
    assert status is not None
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            assert info.domain == "flashgate"
            return info.reason
    raise AssertionError("no ErrorInfo")


def failing(stub: Stub, request: cloud_pb2.CloudServiceGenerateRequest) -> tuple[list[str], grpc.RpcError]:
    """The texts that came before the failure, and the failure."""
    texts: list[str] = []
    with pytest.raises(grpc.RpcError) as caught:
        texts.extend(response.delta.text for response in stub.cloud.Generate(request, timeout=20))
    return texts, caught.value


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("record") / "received.jsonl"


@pytest.fixture(scope="module")
def stub(module_processes: Processes, record: Path) -> Iterator[Stub]:
    """A stub without faults that all tests share."""
    running = Stub(module_processes.cloud_stub("--text", TEXT, "--record", str(record)))
    yield running
    running.close()


class Scenarios:
    """Starts stubs of their own scenario."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._stubs: list[Stub] = []

    def __call__(self, *options: str) -> Stub:
        self._stubs.append(Stub(self._processes.cloud_stub("--text", TEXT, *options)))
        return self._stubs[-1]

    def close(self) -> None:
        for stub in self._stubs:
            stub.close()


@pytest.fixture
def scenario(processes: Processes) -> Iterator[Scenarios]:
    scenarios = Scenarios(processes)
    yield scenarios
    scenarios.close()


def recorded(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# Answers


def test_grpc_streams_the_text_word_by_word_and_ends_with_usage(stub: Stub) -> None:
    *deltas, last = stub.ask("a b c")
    assert [r.delta.text for r in deltas] == ["one", " two", " three", " four", " five", " six"]
    assert {r.delta.model for r in deltas} == {"flashgate-cloud-stub"}
    assert last.finished.finish_reason == common_pb2.FINISH_REASON_STOP
    assert (last.finished.usage.prompt_tokens, last.finished.usage.completion_tokens) == (3, 6)


def test_grpc_honours_max_tokens_and_stop(stub: Stub) -> None:
    *deltas, last = stub.ask(max_tokens=2)
    assert "".join(r.delta.text for r in deltas) == "one two"
    assert last.finished.finish_reason == common_pb2.FINISH_REASON_LENGTH
    *deltas, last = stub.ask(stop=["our", "six"])
    assert "".join(r.delta.text for r in deltas) == "one two three f"
    assert last.finished.finish_reason == common_pb2.FINISH_REASON_STOP


def test_the_openai_client_gets_a_plain_answer(stub: Stub) -> None:
    answer = stub.openai.chat.completions.create(model="any", messages=MESSAGES, max_completion_tokens=3)
    assert answer.choices[0].message.content == "one two three"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (2, 3, 5)


def test_the_openai_client_gets_a_stream_with_usage(stub: Stub) -> None:
    chunks = list(
        stub.openai.chat.completions.create(
            model="any", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
    assert next(c.choices[0].delta.role for c in chunks if c.choices) == "assistant"
    assert [c.usage is None for c in chunks] == [True] * (len(chunks) - 1) + [False]
    assert chunks[-1].choices == []


def test_a_stream_without_asking_has_no_usage_and_ends_with_done(stub: Stub) -> None:
    lines = [line for line in stub.post(stream=True).text.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    assert not any("usage" in line for line in lines)


def test_the_default_text_says_that_it_is_a_stub(processes: Processes) -> None:
    stub = Stub(processes.cloud_stub())
    text = stub.post().json()["choices"][0]["message"]["content"]
    stub.close()
    assert text.startswith("This is flashgate's cloud stub")


def test_models_health_and_reflection_answer(stub: Stub) -> None:
    assert [model.id for model in stub.openai.models.list()] == ["flashgate-cloud-stub"]
    assert get(f"{stub.url}/healthz") == "ok\n"
    health: Any = health_pb2_grpc.HealthStub(stub.channel)
    checked = health.Check(health_pb2.HealthCheckRequest(service="flashgate.v1.CloudService"), timeout=20)
    assert checked.status == health_pb2.HealthCheckResponse.SERVING
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(stub.channel)
    answers = reflection.ServerReflectionInfo(iter([asked]), timeout=20)
    services = {service.name for service in next(iter(answers)).list_services_response.service}
    assert "flashgate.v1.CloudService" in services


def test_metrics_name_the_cloud_lane(stub: Stub) -> None:
    stub.ask()
    exposition = get(f"{stub.url}/metrics")
    assert 'gen_ai_server_request_duration_seconds_count{error_type="",lane="cloud"' in exposition
    assert 'gen_ai_server_time_to_first_token_seconds_bucket{lane="cloud"' in exposition


def test_many_requests_at_once_each_get_the_whole_text(stub: Stub, record: Path) -> None:
    async def ask_all() -> list[str]:
        async with (
            httpx.AsyncClient(base_url=stub.url, trust_env=False, timeout=30) as http,
            grpc.aio.insecure_channel(stub.ready["grpc"], options=(("grpc.enable_http_proxy", 0),)) as channel,
        ):
            cloud = cloud_pb2_grpc.CloudServiceStub(channel)

            async def over_grpc(number: int) -> str:
                responses = cloud.Generate(grpc_request(f"many-grpc-{number}-end"), timeout=30)
                return "".join([response.delta.text async for response in responses])

            async def over_http(number: int) -> str:
                message = {"role": "user", "content": f"many-http-{number}-end"}
                answer = await http.post("/v1/chat/completions", json={"messages": [message]})
                return str(answer.json()["choices"][0]["message"]["content"])

            return await asyncio.gather(*(ask(n) for n in range(40) for ask in (over_grpc, over_http)))

    assert asyncio.run(ask_all()) == [TEXT] * 80
    received = record.read_text()
    assert all(f"many-{way}-{n}-end" in received for n in range(40) for way in ("grpc", "http"))
    recorded(record)  # Every line is whole.


# The record


def test_the_record_holds_everything_that_was_received(stub: Stub, record: Path) -> None:
    request = grpc_request(f"{CANARY}-content", max_tokens=1, stop=[f"{CANARY}-stop"])
    list(stub.cloud.Generate(request, timeout=20, metadata=(("x-note", f"{CANARY}-metadata"),)))
    stub.http.post(
        "/v1/chat/completions?q=" + CANARY + "-query",
        json={"messages": MESSAGES, "user": f"{CANARY}-user"},
        headers={"Authorization": f"Bearer {CANARY}-key"},
    )
    over_grpc, over_http = recorded(record)[-2:]
    assert over_grpc["request"]["messages"] == [{"role": "user", "content": f"{CANARY}-content"}]
    assert over_grpc["request"]["sampling"] == {"max_tokens": 1, "stop": [f"{CANARY}-stop"]}
    assert ["x-note", f"{CANARY}-metadata"] in over_grpc["metadata"]
    assert over_http["request"] == json.loads(over_http["body"]) == {"messages": MESSAGES, "user": f"{CANARY}-user"}
    assert ["authorization", f"Bearer {CANARY}-key"] in over_http["headers"]
    assert over_http["path"].endswith(f"q={CANARY}-query")


def test_what_is_no_request_is_recorded_too(stub: Stub, record: Path) -> None:
    stub.http.post("/v1/chat/completions", content=f"{{not json {CANARY}-broken")
    stub.http.post("/v1/embeddings", json={"input": f"{CANARY}-other-path"})
    raw: Any = stub.channel.unary_stream("/flashgate.v1.CloudService/Generate")
    with pytest.raises(grpc.RpcError) as caught:
        list(raw(b"\xff\xff" + f"{CANARY}-no-message".encode(), timeout=20))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    unknown_field = grpc_request().SerializeToString() + b"\xfa\x3f\x14" + b"canary-7b1f-unknown-"
    list(raw(unknown_field, timeout=20))
    received = record.read_text()
    for place in ("broken", "other-path", "no-message", "unknown-"):
        assert f"{CANARY}-{place}" in received


def test_an_escape_hides_nothing_from_the_record(stub: Stub, record: Path) -> None:
    stub.http.post("/v1/chat/completions", content=r'{"user": "\u0063\u0061nary-7b1f-escaped"}')
    assert f"{CANARY}-escaped" in record.read_text()


def test_a_request_is_on_the_disk_before_its_first_token(scenario: Scenarios, tmp_path: Path) -> None:
    path = tmp_path / "received.jsonl"
    stub = scenario("--hang", "--record", str(path))
    call = stub.cloud.Generate(grpc_request(CANARY))
    eventually(lambda: CANARY in path.read_text(), "the record of a request that hangs")
    call.cancel()


def test_the_record_is_its_owners_only_and_is_appended_to(scenario: Scenarios, tmp_path: Path) -> None:
    path = tmp_path / "received.jsonl"
    path.write_text('{"torn": ')
    path.chmod(0o644)
    scenario("--record", str(path)).ask(CANARY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    torn, entry = path.read_text().splitlines()
    assert torn == '{"torn": '
    assert json.loads(entry)["request"]["messages"][0]["content"] == CANARY


def test_a_request_that_cannot_be_recorded_is_not_answered(scenario: Scenarios) -> None:
    stub = scenario("--record", "/dev/full")
    texts, error = failing(stub, grpc_request(CANARY))
    assert (texts, error.code(), reason_of(error)) == ([], grpc.StatusCode.INTERNAL, "RECORD_FAILED")
    assert stub.post().status_code == 500
    assert CANARY not in stub.process.stderr()


def test_without_record_nothing_is_kept(scenario: Scenarios, tmp_path: Path) -> None:
    stub = scenario()
    stub.ask(CANARY)
    stub.post(user=CANARY)
    assert CANARY not in stub.process.stderr() + get(f"{stub.url}/metrics")
    assert not any(CANARY in path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())


# Scenarios


@pytest.mark.parametrize(
    ("asked", "code", "number"),
    [
        ("UNAVAILABLE", grpc.StatusCode.UNAVAILABLE, 503),
        ("429", grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        ("permission_denied", grpc.StatusCode.PERMISSION_DENIED, 403),
    ],
)
def test_status_is_answered_in_both_protocols(
    scenario: Scenarios, asked: str, code: grpc.StatusCode, number: int
) -> None:
    stub = scenario("--status", asked)
    texts, error = failing(stub, grpc_request())
    assert (texts, error.code(), reason_of(error)) == ([], code, "INJECTED_FAILURE")
    for stream in (False, True):
        answer = stub.post(stream=stream)
        assert answer.status_code == number
        assert answer.json()["error"]["type"] == "injected_failure"
    assert (answer.headers.get("retry-after") == "1") == (number in (429, 503))


def test_fail_rate_fails_the_same_requests_for_the_same_seed(scenario: Scenarios) -> None:
    def outcomes(stub: Stub) -> list[int]:
        return [stub.post(max_tokens=1).status_code for _ in range(12)]

    first, again = (outcomes(scenario("--fail-rate", "0.5", "--seed", "3")) for _ in range(2))
    other = outcomes(scenario("--fail-rate", "0.5", "--seed", "4"))
    assert set(first) == {200, 503}
    assert first == again
    assert first != other


def test_cut_after_breaks_the_stream_in_both_protocols(scenario: Scenarios) -> None:
    stub = scenario("--cut-after", "2")
    texts, error = failing(stub, grpc_request())
    assert (texts, error.code(), reason_of(error)) == (["one", " two"], grpc.StatusCode.UNAVAILABLE, "STREAM_CUT")
    received: list[bytes] = []
    body = {"messages": MESSAGES, "stream": True}
    with (
        stub.http.stream("POST", "/v1/chat/completions", json=body) as answer,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        received.extend(answer.iter_raw())
    text = b"".join(received)
    assert b"two" in text
    assert b"three" not in text
    assert b"[DONE]" not in text
    with pytest.raises(httpx.RemoteProtocolError):
        stub.post()
    assert len(stub.ask(max_tokens=1)) == 2  # An answer shorter than the cut is whole.


def test_hang_answers_nothing_until_the_client_leaves(scenario: Scenarios) -> None:
    stub = scenario("--hang")
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.cloud.Generate(grpc_request(), timeout=0.3))
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    for stream in (False, True):
        with pytest.raises(httpx.ReadTimeout):
            stub.http.post("/v1/chat/completions", json={"messages": MESSAGES, "stream": stream}, timeout=0.3)
    # Both protocols noticed that their clients left.
    gone = 'gen_ai_server_request_duration_seconds_count{error_type="cancelled"'
    eventually(
        lambda: any(
            line.startswith(gone) and line.endswith(" 3.0") for line in get(f"{stub.url}/metrics").splitlines()
        ),
        "three cancelled requests",
    )
    assert "requests_in_flight 0.0" in get(f"{stub.url}/metrics")


def test_pace_is_kept(scenario: Scenarios) -> None:
    stub = scenario("--ttft-ms", "200", "--tokens-per-second", "50")
    stub.ask()
    (event,) = eventually(
        lambda: [json.loads(line) for line in stub.process.stderr().splitlines()], "the request's log line"
    )
    assert event["duration_s"] >= 0.2 + 5 / 50


# Hostile input


def body(**parameters: object) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": "x"}], **parameters}).encode()


BAD_BODIES = {
    "no json": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "no messages": b"{}",
    "empty messages": body(messages=[]),
    "messages of another type": body(messages="hi"),
    "a turn of another type": body(messages=[1]),
    "a role unknown": body(messages=[{"role": "root", "content": "x"}]),
    "an image": body(messages=[{"role": "user", "content": [{"type": "image_url"}]}]),
    "content of another type": body(messages=[{"role": "user", "content": 5}]),
    "max_tokens 0": body(max_tokens=0),
    "max_tokens true": body(max_tokens=True),
    "max_tokens twice": body(max_tokens=1, max_completion_tokens=2),
    "temperature NaN": body(temperature=float("nan")),
    "top_p 0": body(top_p=0),
    "min_p 1": body(min_p=1),
    "stop empty": body(stop=[""]),
    "stop of another type": body(stop=[1]),
    "two answers": body(n=2),
    "unknown key": body(max_tokns=3),
    "usage without stream": body(stream_options={"include_usage": True}),
    "stream of another type": body(stream="yes"),
    "model of another type": body(model=1),
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_a_bad_body_is_a_400_that_explains(stub: Stub, body: bytes) -> None:
    answer = stub.http.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) > 10


def test_the_openai_client_raises_its_own_errors(stub: Stub) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature"):
        stub.openai.chat.completions.create(model="any", messages=MESSAGES, temperature=9)
    with pytest.raises(openai.NotFoundError):
        stub.openai.embeddings.create(model="any", input="x")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (cloud_pb2.CloudServiceGenerateRequest(), "messages"),
        (cloud_pb2.CloudServiceGenerateRequest(messages=[common_pb2.ChatMessage(role="x")]), "role"),
        (grpc_request(max_tokens=0), "max_tokens"),
        (grpc_request(temperature=-1), "temperature"),
        (grpc_request(top_p=1.5), "top_p"),
        (grpc_request(stop=["x"] * 17), "stop"),
    ],
    ids=["nothing", "role", "max_tokens", "temperature", "top_p", "stop"],
)
def test_a_bad_message_is_an_invalid_argument_that_names_the_field(
    stub: Stub, request_: cloud_pb2.CloudServiceGenerateRequest, field: str
) -> None:
    texts, error = failing(stub, request_)
    assert (texts, error.code(), reason_of(error)) == ([], grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert field in (error.details() or "")


def test_a_body_beyond_the_limit_is_refused_and_recorded_as_far_as_it_came(stub: Stub, record: Path) -> None:
    answer = stub.http.post("/v1/chat/completions", content=f"{CANARY}-large".encode() + b" " * (17 << 20))
    assert answer.status_code == 413
    last = recorded(record)[-1]
    assert last["body"].startswith(f"{CANARY}-large")
    assert last["incomplete"] == "too large"


def test_an_id_that_could_be_content_is_not_logged(stub: Stub) -> None:
    request = grpc_request()
    request.request_id = f"{CANARY} is no id"
    list(stub.cloud.Generate(request, timeout=20))
    assert CANARY not in stub.process.stderr()


# Its own life


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_answers_end(scenario: Scenarios, number: signal.Signals) -> None:
    stub = scenario("--tokens-per-second", "20")
    responses = stub.cloud.Generate(grpc_request(), timeout=20)
    texts = [next(responses).delta.text]
    stub.process.send(number)
    texts += [response.delta.text for response in responses]
    assert "".join(texts) == TEXT
    assert stub.process.wait() == 0
    assert len(stub.process.lines) == 1


def test_a_signal_lets_a_running_http_stream_end(scenario: Scenarios) -> None:
    stub = scenario("--tokens-per-second", "20")
    body = {"messages": MESSAGES, "stream": True}
    with stub.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        stub.process.send(signal.SIGTERM)
        assert list(lines)[-2:] == ["data: [DONE]", ""]
    assert stub.process.wait() == 0


def test_a_signal_ends_requests_that_hang(scenario: Scenarios, tmp_path: Path) -> None:
    path = tmp_path / "received.jsonl"
    stub = scenario("--hang", "--record", str(path))
    call = stub.cloud.Generate(grpc_request(CANARY))
    eventually(lambda: CANARY in path.read_text(), "the request's arrival")
    assert stub.process.stop() == 0
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_log_that_nobody_reads_any_more_stops_no_answer(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    argv = [command("flashgate-cloud-stub"), "serve", "--port", "0", "--metrics-port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=writing, text=True) as process:
        os.close(writing)
        os.close(reading)
        assert process.stdout is not None
        http = dict(word.split("=", 1) for word in process.stdout.readline().split()[2:])["http"]
        with httpx.Client(base_url=f"http://{http}", trust_env=False, timeout=20) as client:
            answers = [client.post("/v1/chat/completions", json={"messages": MESSAGES}) for _ in range(2)]
        process.terminate()
    assert [answer.status_code for answer in answers] == [200, 200]
    assert process.returncode == 0


def test_a_port_in_use_is_named(processes: Processes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for option in ("--port", "--metrics-port"):
            other = "--metrics-port" if option == "--port" else "--port"
            argv = [command("flashgate-cloud-stub"), "serve", option, port, other, "0"]
            process = processes.start(argv)
            assert process.wait() == 1
            assert f"127.0.0.1:{port}" in process.stderr()
            assert f"{option}\n" in process.stderr()
            assert "Traceback" not in process.stderr()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--status", "OK"), "OK"),
        (("--status", "200"), "200"),
        (("--fail-rate", "1.5"), "--fail-rate"),
        (("--tokens-per-second", "0"), "--tokens-per-second"),
        (("--ttft-ms", "-1"), "--ttft-ms"),
        (("--cut-after", "-1"), "--cut-after"),
        (("--port", "70000"), "--port"),
        (("--model", "two words"), "--model"),
        (("--text", " "), "--text"),
        (("--record", "/nonexistent/file"), "/nonexistent/file"),
        (("--unknown",), "--unknown"),
    ],
)
def test_a_bad_option_is_explained_in_one_line(processes: Processes, options: tuple[str, ...], said: str) -> None:
    process = processes.cloud_stub(*options)
    assert process.wait() in (1, 2)
    last = process.stderr().splitlines()[-1]
    assert "error: " in last
    assert said in last
    assert process.lines == []
