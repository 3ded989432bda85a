"""`flashgate-edge serve` as real processes: answers, refusals, faults, recovery, end."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from flashgate.v1 import common_pb2, edge_pb2
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from prometheus_client.parser import text_string_to_metric_families

from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.sampler import SamplingParams
from edge.tokenizer import Tokenizer
from tests.integration.edge_node import (
    ENDLESS,
    Answer,
    EdgeNode,
    Request,
    chat_request,
    ids_request,
    make_pack,
    refusal,
    request,
)
from tests.integration.harness import Processes, command, eventually, get

SERVICE = "flashgate.v1.EdgeService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tireless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack whose answers end with max_tokens only."""
    return make_pack(tmp_path_factory.mktemp("tireless"), tokenizer=False, ends=False)


@pytest.fixture(scope="module")
def node(module_processes: Processes, pack: Path) -> Iterator[EdgeNode]:
    """One server for the tests that leave it as it was: one place, a queue of two."""
    node = EdgeNode(module_processes, pack, "--sequences", "1", "--queue", "2")
    yield node
    node.close()


@pytest.fixture(autouse=True)
def _idle_afterwards(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves work behind for the next."""
    yield
    if "node" in request.fixturenames:
        node: EdgeNode = request.getfixturevalue("node")
        eventually(lambda: node.is_ready() and node.status().running == node.status().queue_depth == 0, "an idle node")


class TestAnswers:
    def test_text_chat_and_ids_give_what_the_engine_gives(self, node: EdgeNode, pack: Path) -> None:
        tokenizer = Tokenizer.from_dir(pack / "tokenizer")
        chat = [("system", "Be brief."), ("user", "Héllo 👩‍🔬")]
        text_ids = tokenizer.encode("Hello there")
        chat_ids = tokenizer.encode_chat([{"role": role, "content": content} for role, content in chat])
        engine = Engine.load(pack, EngineOptions(memory_bytes=2_000_000_000))
        try:
            expected = {
                tuple(ids): list(engine.generate(ids, SamplingParams(max_tokens=24))) for ids in (text_ids, chat_ids)
            }
        finally:
            engine.close()
        by_text = node.answer(request(max_tokens=24))
        by_ids = node.answer(ids_request(*text_ids, max_tokens=24))
        by_chat = node.answer(chat_request(*chat, max_tokens=24))
        assert by_text.ids == by_ids.ids == expected[tuple(text_ids)]
        assert by_chat.ids == expected[tuple(chat_ids)]
        for answer, ids in ((by_text, text_ids), (by_chat, chat_ids)):
            assert answer.text == tokenizer.decode(answer.ids)
            assert answer.started == edge_pb2.EdgeStarted(model="checkpoint", prompt_tokens=len(ids), weight_bits=8)
            assert answer.finished.usage.prompt_tokens == len(ids)
            assert answer.finished.usage.completion_tokens == len(answer.ids)
            assert answer.finished.expert_cache_lookups > answer.finished.expert_cache_hits > 0

    def test_a_seed_repeats_a_sampled_answer(self, node: EdgeNode) -> None:
        answers = []
        for seed in (1, 1, 2):
            sampling = common_pb2.Sampling(max_tokens=16, temperature=1.5, top_p=0.9, top_k=50, min_p=0.01, seed=seed)
            answers.append(node.answer(Request(text="Once", sampling=sampling)).ids)
        assert answers[0] == answers[1] != answers[2]

    def test_a_stop_text_ends_the_answer_before_it(self, node: EdgeNode) -> None:
        whole = node.answer(request(max_tokens=32)).text
        stop = next(word for word in whole.split() if len(word) > 1 and whole.index(word) > 3)
        answer = node.answer(request(max_tokens=32, stop=[stop]))
        assert answer.text == whole[: whole.index(stop)]
        assert answer.finished.finish_reason == common_pb2.FinishReason.FINISH_REASON_STOP

    def test_requests_at_once_are_answered_one_after_the_other(self, node: EdgeNode) -> None:
        alone = node.answer(request()).ids
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda _: node.answer(request()), range(3)))
        assert [answer.ids for answer in answers] == [alone] * 3

    def test_a_model_without_tokenizer_takes_ids(self, processes: Processes, tmp_path: Path) -> None:
        node = EdgeNode(processes, make_pack(tmp_path, tokenizer=False))
        answer = node.answer(ids_request(1, 2, 3))
        assert (len(answer.ids), answer.text) == (8, "")
        for prompt in (request(), chat_request(("user", "hi"))):
            assert refusal(node.generate(prompt))[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        node.close()

    def test_more_tokens_than_the_context_holds_end_at_its_end(self, processes: Processes, pack: Path) -> None:
        small = EdgeNode(processes, pack, "--context", "20")
        answer = small.answer(ids_request(1, 2, 3, max_tokens=2**32 - 1))
        assert 0 < len(answer.ids) <= 18
        assert small.answer(ids_request(*[5] * 20)).ids != []
        small.close()


class TestRefusals:
    def test_hostile_input_is_refused_and_the_server_lives(self, node: EdgeNode) -> None:
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        assert refusal(node.generate(request("a" * 100_000)))[:2] == (invalid, "PROMPT_TOO_LONG")
        assert refusal(node.generate(request("word " * 5000)))[:2] == (invalid, "PROMPT_TOO_LONG")
        assert refusal(node.generate(chat_request()))[:2] == (invalid, "INVALID_REQUEST")
        assert refusal(node.generate(chat_request(("wizard", "hi"))))[:2] == (invalid, "INVALID_REQUEST")
        assert refusal(node.generate(ids_request(2**31)))[:2] == (invalid, "INVALID_REQUEST")
        assert refusal(node.generate(request(top_p=float("inf"))))[:2] == (invalid, "INVALID_REQUEST")
        assert node.answer(request()).ids

    def test_bytes_that_are_no_message_are_refused(self, node: EdgeNode) -> None:
        raw = node.channel.unary_stream(f"/{SERVICE}/Generate", lambda payload: payload, lambda payload: payload)
        invalid_utf8 = b"\x1a\x02\xff\xfe"  # field 3, `text`
        for payload in (invalid_utf8, b"\xff" * 100):
            got = refusal(raw(payload, timeout=20))
            assert got[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        with pytest.raises(grpc.RpcError) as caught:
            list(raw(b"\x1a" + b"a" * (17 * 2**20), timeout=20))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert node.answer(request()).ids


class TestFaults:
    def test_a_killed_engine_ends_its_request_and_is_replaced(self, processes: Processes, tireless: Path) -> None:
        node = EdgeNode(processes, tireless)
        before = node.answer(ids_request(1, 2, 3)).ids
        call = node.begin(ids_request(1, 2, 3, max_tokens=ENDLESS))
        reads = metric(node, "flashgate_edge_expert_read_bytes_total")
        node.kill_engine()
        assert refusal(call)[:2] == (grpc.StatusCode.UNAVAILABLE, "ENGINE_DIED")
        eventually(lambda: node.status().engine_restarts == 1 and node.is_ready(), "a new engine")
        assert node.answer(ids_request(1, 2, 3)).ids == before
        assert node.health(SERVICE) == SERVING
        assert metric(node, "flashgate_edge_engine_restarts_total") == 1
        assert metric(node, "flashgate_edge_expert_read_bytes_total") >= reads > 0
        node.close()

    def test_a_damaged_expert_fails_requests_and_not_the_server(self, processes: Processes, tmp_path: Path) -> None:
        pack = make_pack(tmp_path)
        layer = sorted((pack / "layers").iterdir())[1]
        sound = layer.read_bytes()
        layer.write_bytes(bytes(byte ^ 0x55 for byte in sound))
        node = EdgeNode(processes, pack)
        for _ in range(2):
            assert refusal(node.generate(request()))[:2] == (grpc.StatusCode.DATA_LOSS, "STORAGE")
        assert node.is_ready()
        assert node.status().engine_restarts == 0
        layer.write_bytes(sound)
        assert len(node.answer(request()).ids) == 8
        node.close()

    def test_an_engine_that_hangs_is_replaced(self, processes: Processes, tireless: Path) -> None:
        node = EdgeNode(processes, tireless, "--engine-timeout", "1")
        call = node.begin(ids_request(1, 2, 3, max_tokens=ENDLESS))
        os.kill(node.engine_pid(), signal.SIGSTOP)
        assert refusal(call)[:2] == (grpc.StatusCode.UNAVAILABLE, "ENGINE_TIMEOUT")
        eventually(lambda: node.status().engine_restarts == 1 and node.is_ready(), "a new engine")
        assert node.answer(ids_request(1, 2, 3)).ids
        node.close()

    def test_an_engine_that_cannot_be_loaded_again_is_said_to_have_failed(
        self, processes: Processes, tmp_path: Path
    ) -> None:
        pack = make_pack(tmp_path)
        node = EdgeNode(processes, pack)
        (pack / "dense.bin").write_bytes(b"")
        node.kill_engine()
        failed = edge_pb2.EngineState.ENGINE_STATE_FAILED
        eventually(lambda: node.status().engine_state == failed, "an engine given up")
        assert "dense.bin" in node.status().engine_error
        assert refusal(node.generate(request()))[:2] == (grpc.StatusCode.UNAVAILABLE, "ENGINE_FAILED")
        assert node.health() == NOT_SERVING
        assert node.process.stop() == 0
        node.close()

    def test_the_engine_leaves_when_the_server_is_killed(self, processes: Processes, pack: Path) -> None:
        node = EdgeNode(processes, pack)
        engine = node.engine_pid()
        os.kill(node.process.pid, signal.SIGKILL)
        eventually(lambda: not is_running(engine), "the end of the orphaned engine")
        node.close()


class TestEnd:
    def test_draining_answers_what_runs_and_refuses_what_comes(self, processes: Processes, tireless: Path) -> None:
        node = EdgeNode(processes, tireless)
        call = node.generate(ids_request(1, 2, 3, max_tokens=1500))
        responses = [next(call)]
        node.process.send_group(signal.SIGTERM)
        eventually(lambda: node.status().engine_state == edge_pb2.EngineState.ENGINE_STATE_DRAINING, "a draining node")
        assert refusal(node.generate(ids_request(1, 2, 3)))[:2] == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert node.health() == NOT_SERVING
        answer = Answer([*responses, *call])
        assert len(answer.ids) == answer.finished.usage.completion_tokens > 0
        assert node.process.wait() == 0
        node.close()

    def test_what_takes_longer_than_the_drain_is_ended_with_a_status(
        self, processes: Processes, tireless: Path
    ) -> None:
        node = EdgeNode(processes, tireless, "--drain-seconds", "0.2")
        call = node.begin(ids_request(1, 2, 3, max_tokens=ENDLESS))
        node.process.send_group(signal.SIGINT)
        assert refusal(call)[:2] == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert node.process.wait() == 0
        node.close()


class TestStart:
    @pytest.mark.parametrize(
        "options",
        [
            ("--memory", "90MB"),
            ("--memory", "lots"),
            ("--port", "70000"),
            ("--engine-timeout", "0.1"),
            ("--sequences", "0"),
            ("--prefix-disk", "1GB"),
            ("--prefix-dir", "/dev/null", "--prefix-disk", "1GB"),
        ],
    )
    def test_what_cannot_work_is_one_line_and_status_1(self, pack: Path, options: tuple[str, ...]) -> None:
        status, errors = start_and_fail(pack, *options)
        assert status == 1
        assert errors[-1].startswith("flashgate-edge: error: ")

    def test_a_model_that_is_none_is_named(self, tmp_path: Path) -> None:
        status, errors = start_and_fail(tmp_path / "missing")
        assert status == 1
        assert "missing" in errors[-1]

    def test_a_port_that_is_taken_is_named(self, pack: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            for option in ("--port", "--metrics-port"):
                status, errors = start_and_fail(pack, option, str(port))
                assert status == 1
                assert f"127.0.0.1:{port}" in errors[-1]


class TestStandards:
    def test_health_and_metrics_say_that_it_serves(self, node: EdgeNode) -> None:
        for service in ("", SERVICE):
            assert node.health(service) == SERVING
        assert get(f"http://{node.metrics}/healthz") == "ok\n"
        node.answer(request())
        assert metric(node, "flashgate_edge_decode_tokens_per_second") > 0
        assert metric(node, "gen_ai_server_time_to_first_token_seconds_count") > 0

    def test_a_client_that_knows_nothing_learns_all_by_reflection(self, node: EdgeNode) -> None:
        database = ProtoReflectionDescriptorDatabase(node.channel)
        assert SERVICE in database.get_services()
        method = descriptor_pool.DescriptorPool(database).FindServiceByName(SERVICE).FindMethodByName("GetStatus")
        call: Any = node.channel.unary_unary(
            f"/{SERVICE}/GetStatus",
            lambda message: message.SerializeToString(),
            message_factory.GetMessageClass(method.output_type).FromString,
        )
        answer = call(message_factory.GetMessageClass(method.input_type)(), timeout=20)
        assert json_format.MessageToDict(answer)["engineState"] == "ENGINE_STATE_READY"

    def test_the_server_does_not_interrupt_its_engine(self, node: EdgeNode) -> None:
        assert os.sched_getscheduler(node.process.pid) == os.SCHED_BATCH
        assert os.sched_getscheduler(node.engine_pid()) == os.SCHED_OTHER

    def test_memory_stays_under_the_budget(self, node: EdgeNode) -> None:
        node.answer(request("word " * 900, max_tokens=16))
        status = node.status()
        assert 0 < status.memory_bytes < status.memory_budget_bytes == 400_000_000

    def test_logs_are_json_and_hold_no_content(self, node: EdgeNode) -> None:
        canary = "canary-7f3a"
        message = chat_request(("user", canary))
        message.request_id = "test-id-1"
        answer = node.answer(message)
        refusal(node.generate(chat_request((canary, canary))))
        refusal(node.generate(request(canary * 5000)))
        lines = [json.loads(line) for line in eventually(lambda: node.process.stderr().splitlines(), "log lines")]
        ended = [line for line in lines if line["event"] == "request_ended" and line["request_id"] == "test-id-1"]
        assert [line["outcome"] for line in ended] == ["finished"]
        everything = node.process.stderr() + get(f"http://{node.metrics}/metrics")
        assert canary not in everything
        assert answer.text not in everything


def metric(node: EdgeNode, name: str) -> float:
    families = text_string_to_metric_families(get(f"http://{node.metrics}/metrics"))
    return next(sample.value for family in families for sample in family.samples if sample.name == name)


def is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def start_and_fail(pack: Path, *options: str) -> tuple[int, list[str]]:
    """The exit status and stderr of a server that never comes to serve."""
    argv = [command("flashgate-edge"), "serve", str(pack), "--port", "0", "--metrics-port", "0", *options]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()
