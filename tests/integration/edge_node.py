"""A real `flashgate-edge serve` on a small random pack, and what tests ask of it."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from flashgate.v1 import common_pb2, edge_pb2, edge_pb2_grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from edge.checkpoint.convert import Conversion
from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from tests.integration.harness import Process, Processes, command

Request = edge_pb2.EdgeServiceGenerateRequest
# More than a test waits for: it is cancelled, or ends for another reason.
ENDLESS = 4000
TIMEOUT_S = 60.0


def make_pack(directory: Path, *, tokenizer: bool = True, ends: bool = True) -> Path:
    """A pack of the random model in `directory`; one that does not `end` an answer goes on to max_tokens."""
    checkpoint, pack = directory / "checkpoint", directory / "pack"
    config = SMALL if ends else replace(SMALL, eos_token_ids=())
    write_random_checkpoint(checkpoint, config, tokenizer=tokenizer)
    with Conversion(checkpoint, pack, bits=8, force=False) as conversion:
        progress: list[int] = []
        conversion.run(progress.append)
    return pack


class EdgeNode:
    """A running server. Its calls never go through a proxy of the environment."""

    def __init__(self, processes: Processes, pack: Path, *options: str) -> None:
        arguments = ("--port", "0", "--metrics-port", "0", "--memory", "400MB", *options)
        self.process: Process = processes.start([command("flashgate-edge"), "serve", str(pack), *arguments])
        words = self.process.ready()
        self.address, self.metrics = words["grpc"], words["metrics"]
        self.channel = grpc.insecure_channel(self.address, options=[("grpc.enable_http_proxy", 0)])
        self.stub = edge_pb2_grpc.EdgeServiceStub(self.channel)

    def close(self) -> None:
        self.channel.close()
        self.process.kill()

    def generate(self, request: Request, timeout_s: float = TIMEOUT_S) -> Any:
        """The stream of responses; `cancel()` leaves it."""
        return self.stub.Generate(request, timeout=timeout_s)

    def begin(self, request: Request) -> Any:
        """A stream whose first token is there."""
        call = self.generate(request)
        next(response for response in call if response.HasField("tokens"))
        return call

    def answer(self, request: Request) -> "Answer":
        return Answer(list(self.generate(request)))

    def status(self) -> edge_pb2.EdgeServiceGetStatusResponse:
        return self.stub.GetStatus(edge_pb2.EdgeServiceGetStatusRequest(), timeout=TIMEOUT_S)

    def is_ready(self) -> bool:
        return self.status().engine_state == edge_pb2.EngineState.ENGINE_STATE_READY

    def health(self, service: str = "") -> int:
        """A `HealthCheckResponse.ServingStatus`."""
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S).status)

    def kill_engine(self) -> None:
        os.kill(self.engine_pid(), signal.SIGKILL)

    def engine_pid(self) -> int:
        pid = self.process.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(child)


class Answer:
    """A whole stream, taken apart."""

    def __init__(self, responses: list[edge_pb2.EdgeServiceGenerateResponse]) -> None:
        first, *tokens, last = responses
        self.started = first.started
        self.ids = [token for response in tokens for token in response.tokens.ids]
        self.text = "".join(response.tokens.text for response in tokens)
        self.finished = last.finished


def request(text: str = "Hello there", max_tokens: int = 8, **sampling: Any) -> Request:
    return Request(text=text, sampling=common_pb2.Sampling(max_tokens=max_tokens, temperature=0, **sampling))


def ids_request(*ids: int, max_tokens: int = 8) -> Request:
    sampling = common_pb2.Sampling(max_tokens=max_tokens, temperature=0)
    return Request(token_ids=edge_pb2.TokenIds(ids=ids), sampling=sampling)


def chat_request(*turns: tuple[str, str], max_tokens: int = 8) -> Request:
    messages = [common_pb2.ChatMessage(role=role, content=content) for role, content in turns]
    sampling = common_pb2.Sampling(max_tokens=max_tokens, temperature=0)
    return Request(chat=edge_pb2.ChatPrompt(messages=messages), sampling=sampling)


def refusal(call: Iterator[Any]) -> tuple[grpc.StatusCode, str, float | None]:
    """How a stream ends that must not end well: status, reason, seconds to wait."""
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    error: Any = caught.value
    status = rpc_status.from_call(error)
    assert status is not None, error
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "flashgate"
    waits = len(status.details) > 1 and status.details[1].Unpack(retry)
    return error.code(), info.reason, retry.retry_delay.ToTimedelta().total_seconds() if waits else None
