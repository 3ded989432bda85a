"""Callers, disks and signals that mean harm: the server stays within its memory, everybody else gets an answer."""

import json
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from flashgate.v1 import common_pb2, edge_pb2

from edge.server.limits import MAX_MESSAGES, margin_bytes, max_prompt_bytes, max_request_bytes
from tests.integration.edge_node import EdgeNode, Request, ids_request, make_pack, request
from tests.integration.harness import Processes, eventually, get

CONTEXT = 4096
CANARY = 487  # a token id that would be noticed in a log
TENANTS = ("", "tenant-to-be-noticed", "Пациент-to-be-noticed", "\0" * 256, "𝔘" * 256)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("model"), ends=False)


def peak_bytes(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def code_of(node: EdgeNode, prompt: Request) -> str:
    call = node.generate(prompt)
    try:
        for _ in call:
            pass
    except grpc.RpcError:
        pass
    return str(call.code().name)


def test_no_request_makes_the_server_hold_more_than_its_share(processes: Processes, pack: Path) -> None:
    node = EdgeNode(processes, pack, "--queue", "3", "--sequences", "1")
    before = peak_bytes(node.process.pid)
    empty = common_pb2.ChatMessage()
    hostile = [
        request("1" * max_prompt_bytes(CONTEXT)),  # each digit a token
        request("1" * (max_request_bytes(CONTEXT) - 100)),
        request("1" * 15_000_000),
        Request(chat=edge_pb2.ChatPrompt(messages=[empty] * MAX_MESSAGES)),
        Request(chat=edge_pb2.ChatPrompt(messages=[empty] * (max_prompt_bytes(CONTEXT) // 2))),
        ids_request(*[5] * 150_000),
        request(stop=[""] * 70_000),
    ]
    with ThreadPoolExecutor(42) as pool:
        codes = set(pool.map(lambda prompt: code_of(node, prompt), hostile * 6))
    assert codes == {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
    assert peak_bytes(node.process.pid) - before <= margin_bytes(CONTEXT)
    assert node.answer(request()).ids
    node.close()


@contextmanager
def watched(node: EdgeNode) -> Iterator[None]:
    """Until the block ends, somebody polls status and metrics, and what they say makes sense."""
    is_over, faults = threading.Event(), list[BaseException]()

    def watch() -> None:
        try:
            while not is_over.is_set():
                status = node.status()
                assert status.queue_depth <= status.queue_limit + status.running_limit
                assert status.running <= status.running_limit
                assert status.memory_bytes <= status.memory_budget_bytes
                assert "flashgate_edge_queue_depth" in get(f"http://{node.metrics}/metrics")
        except BaseException as error:
            faults.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    assert not faults, faults


def vandalise(directory: Path, rng: random.Random) -> None:
    """Snapshots cut off, overwritten, replaced by links and directories, or gone."""
    for path in sorted(path for path in directory.glob("*.prefix") if path.is_file()):
        match rng.randrange(6):
            case 0:
                os.truncate(path, 5000)
            case 1:
                path.write_bytes(b"\xff" * 20_000)
            case 2:
                path.unlink()
                path.symlink_to("/dev/zero")
            case 3:
                path.unlink()
                path.mkdir()
            case 4:
                path.unlink()


def caller(node: EdgeNode, seed: int) -> Callable[[], str]:
    """One of those who stay, leave, come too late, or ask for the absurd; how its call ended."""
    rng = random.Random(seed)
    ids = [*range(1, 60 + 16 * rng.randrange(3)), CANARY, CANARY, rng.randrange(9)]
    sampling = common_pb2.Sampling(
        max_tokens=rng.choice((1, 30, 30, 2**32 - 1)),
        temperature=rng.choice((0, 1e-45, 2)),
        top_p=rng.choice((1e-45, 0.9, 1)),
        top_k=rng.choice((0, 1, 2**32 - 1)),
        min_p=rng.choice((0, 0.99)),
        seed=rng.choice((0, 2**64 - 1)),
    )
    prompt = Request(token_ids=edge_pb2.TokenIds(ids=ids), sampling=sampling, tenant=rng.choice(TENANTS))
    leaves_after = rng.choice((0, 1, 3)) if sampling.max_tokens > 30 else rng.choice((None, None, None, 2))
    timeout_s = rng.choice((0.01, 0.3, 60.0, 60.0, 60.0))

    def call() -> str:
        stream = node.generate(prompt, timeout_s)
        try:
            for number, _ in enumerate(stream):
                if number == leaves_after:
                    stream.cancel()
        except grpc.RpcError:
            pass
        return str(stream.code().name)

    return call


def test_vandals_kills_and_a_crowd_leave_a_node_that_answers_as_before(
    processes: Processes, pack: Path, tmp_path: Path
) -> None:
    directory, rng = tmp_path / "prefixes", random.Random(3)
    node = EdgeNode(
        processes, pack, "--sequences", "3", "--queue", "40", "--prefix-dir", str(directory), "--prefix-disk", "20MB"
    )
    probe = ids_request(*range(1, 70), max_tokens=12)
    expected = node.answer(probe).ids

    def meet(round_: int) -> list[str]:
        calls = [pool.submit(caller(node, 40 * round_ + number)) for number in range(40)]
        eventually(lambda: any(call.done() for call in calls), "the first to end")
        if round_:
            node.kill_engine()
        vandalise(directory, rng)
        ends = [call.result() for call in calls]
        eventually(lambda: node.is_ready() and node.status().engine_restarts == round_, "another engine")
        assert node.answer(probe).ids == expected
        return ends

    with watched(node), ThreadPoolExecutor(12) as pool:
        ends = {end for round_ in range(2) for end in meet(round_)}
    eventually(lambda: node.status().running == node.status().queue_depth == 0, "an idle node")
    status = node.status()
    assert (status.pending_prompt_tokens, status.pending_completion_tokens, status.steps_until_place) == (0, 0, 0)
    assert ends == {"OK", "CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE"}
    everything = node.process.stderr()
    assert node.process.stop() == 0
    node.close()
    events = {json.loads(line)["event"] for line in everything.splitlines()}
    assert events <= {"engine_state", "engine_died", "request_ended", "prefix_file_removed"}
    assert not re.search(rf"to-be-noticed|𝔘|\b{CANARY}\b", everything)
