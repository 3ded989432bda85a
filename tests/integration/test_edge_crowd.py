"""`flashgate-edge serve` with many requests at once: each is answered as if it were alone, whatever the others do."""

import json
import random
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from flashgate.v1 import common_pb2, edge_pb2

from tests.integration.edge_node import ENDLESS, Answer, EdgeNode, Request, ids_request, make_pack, refusal, request
from tests.integration.harness import Processes, eventually, get

NUM_SEQUENCES = 4
QUEUE = 8


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("model"), tokenizer=False, ends=False)


@pytest.fixture(scope="module")
def node(module_processes: Processes, pack: Path) -> Iterator[EdgeNode]:
    node = EdgeNode(module_processes, pack, "--sequences", str(NUM_SEQUENCES), "--queue", str(QUEUE))
    yield node
    node.close()


@pytest.fixture(autouse=True)
def _idle_afterwards(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "node" in request.fixturenames:
        node: EdgeNode = request.getfixturevalue("node")
        eventually(lambda: node.status().running == node.status().queue_depth == 0, "an idle node")


def sampled(seed: int) -> Request:
    sampling = common_pb2.Sampling(max_tokens=24, temperature=1.2, top_k=40, seed=seed)
    return Request(token_ids=edge_pb2.TokenIds(ids=[seed, 1, 2, 3]), sampling=sampling)


def greedy(number: int, max_tokens: int = 200) -> Request:
    """Each number is another prompt, of another length."""
    return ids_request(*range(1, 8 * number + 9), max_tokens=max_tokens)


def endless(number: int = 0) -> Request:
    """One that does not end by itself while a test looks, and leaves room for three like it in the engine's memory."""
    return greedy(number, ENDLESS // 2)


def test_eight_at_once_are_answered_as_each_is_alone(node: EdgeNode) -> None:
    prompts = [*(greedy(number, 24) for number in range(4)), *(sampled(seed) for seed in range(4))]
    alone = [node.answer(prompt).ids for prompt in prompts]
    gate = threading.Barrier(len(prompts))

    def ask(prompt: Request) -> Answer:
        gate.wait()
        return node.answer(prompt)

    with ThreadPoolExecutor(len(prompts)) as pool:
        together = list(pool.map(ask, prompts))
    assert [answer.ids for answer in together] == alone
    assert all(answer.finished.expert_cache_lookups > 0 for answer in together)


def test_as_many_as_there_are_places_run_at_once_and_the_status_counts_them(node: EdgeNode) -> None:
    calls = [node.begin(endless(number)) for number in range(NUM_SEQUENCES)]
    waiting = [node.generate(greedy(0, 8)) for _ in range(2)]
    eventually(lambda: node.status().queue_depth == 2, "two waiting requests")
    status = node.status()
    assert (status.running, status.running_limit, status.queue_limit) == (NUM_SEQUENCES, NUM_SEQUENCES, QUEUE)
    assert status.steps_until_place > 0
    for call in calls:
        call.cancel()
    assert all(len(Answer(list(call)).ids) == 8 for call in waiting)
    status = node.status()
    assert status.steps_until_place == 0
    assert 1 < status.batch_size <= NUM_SEQUENCES
    assert 0 < status.decode_tokens_per_second < status.total_decode_tokens_per_second
    assert "flashgate_edge_batch_size_bucket" in get(f"http://{node.metrics}/metrics")


def test_past_the_places_and_the_queue_a_request_is_told_when_to_come_back(node: EdgeNode) -> None:
    calls = [node.begin(endless(number)) for number in range(NUM_SEQUENCES)]
    calls += [node.generate(greedy(0)) for _ in range(QUEUE)]
    eventually(lambda: node.status().queue_depth == QUEUE, "a full queue")
    code, reason, wait_s = refusal(node.generate(greedy(0)))
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert wait_s is not None
    assert wait_s >= 1
    for call in calls:
        call.cancel()


def test_a_caller_that_leaves_frees_its_place_and_disturbs_nobody(node: EdgeNode) -> None:
    expected = [node.answer(greedy(number)).ids for number in range(3)]
    leaving = node.begin(endless())
    staying = [node.generate(greedy(number)) for number in range(3)]
    eventually(lambda: node.status().running == NUM_SEQUENCES, "four running requests")
    leaving.cancel()
    assert [Answer(list(call)).ids for call in staying] == expected


def test_a_deadline_ends_its_own_request_only(node: EdgeNode) -> None:
    expected = node.answer(greedy(0)).ids
    with ThreadPoolExecutor(3) as pool:
        staying = [pool.submit(node.answer, greedy(0)) for _ in range(3)]
        with pytest.raises(grpc.RpcError) as caught:
            list(node.generate(endless(), timeout_s=0.3))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert [answer.result().ids for answer in staying] == [expected] * 3


def test_a_slow_reader_holds_up_nobody(node: EdgeNode) -> None:
    slow = node.generate(greedy(0, 400))
    started = next(slow)
    quick = [node.answer(greedy(number, 100)) for number in range(3)]
    assert [len(answer.ids) for answer in quick] == [100] * 3
    eventually(lambda: node.status().running == 0, "an engine that is done with the slow reader's answer too")
    assert len(Answer([started, *slow]).ids) == 400


def test_hostile_requests_disturb_nobody(node: EdgeNode) -> None:
    raw: Any = node.channel.unary_stream(
        "/flashgate.v1.EdgeService/Generate", lambda payload: payload, lambda payload: payload
    )
    hostile: list[Callable[[], Any]] = [
        lambda: node.generate(request("a" * 100_000)),
        lambda: raw(b"\xff" * 100, timeout=20),
        lambda: node.generate(ids_request(*[1] * 5000)),
        lambda: node.generate(ids_request(2**31)),
        lambda: node.generate(Request(text="hi", tenant="t" * 1000)),
    ]

    def code(ask: Callable[[], Any]) -> grpc.StatusCode:
        return refusal(ask())[0]

    expected = node.answer(greedy(0)).ids
    with ThreadPoolExecutor(7) as pool:
        answers = [pool.submit(node.answer, greedy(0)) for _ in range(3)]
        refusals = [pool.submit(code, ask) for ask in hostile * 3]
    assert {future.result() for future in refusals} == {grpc.StatusCode.INVALID_ARGUMENT}
    assert [future.result().ids for future in answers] == [expected] * 3
    assert node.status().engine_restarts == 0


def test_every_request_of_a_crowd_ends(node: EdgeNode) -> None:
    """Callers that stay, leave, come late or find the queue full, at once and in an order that repeats."""
    rng = random.Random(7)
    plans = [(rng.choice((0.01, 0.3, 60.0)), rng.random() < 0.3, rng.randint(0, 40)) for _ in range(120)]

    def one(plan: tuple[float, bool, int]) -> str:
        timeout_s, leaves, number = plan
        call = node.generate(greedy(number, 40), timeout_s)
        try:
            for response in call:
                if leaves and response.HasField("tokens"):
                    call.cancel()
        except grpc.RpcError:
            return str(call.code().name)
        return "OK"

    with ThreadPoolExecutor(2 * (NUM_SEQUENCES + QUEUE)) as pool:
        ends = set(pool.map(one, plans))
    assert ends == {"OK", "CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
    assert node.status().engine_restarts == 0
    events = {json.loads(line)["event"] for line in node.process.stderr().splitlines()}
    assert events == {"engine_state", "request_ended"}


def test_a_prompts_beginning_is_reused_within_its_tenant_only(processes: Processes, pack: Path) -> None:
    node = EdgeNode(processes, pack, "--prefix-memory", "50MB")

    def ask(tenant: str, last: int) -> Answer:
        prompt = ids_request(*range(1, 300), last)
        prompt.tenant = tenant
        return node.answer(prompt)

    first = ask("clinic", 7)
    again = ask("clinic", 7)
    assert first.finished.reused_prompt_tokens == 0
    assert 0 < again.finished.reused_prompt_tokens < 300
    assert again.ids == first.ids
    assert ask("clinic", 8).finished.reused_prompt_tokens > 0
    for other in ("", "clinic2"):
        assert ask(other, 7).finished.reused_prompt_tokens == 0
    assert node.status().prompt_reuse_rate > 0
    metrics = get(f"http://{node.metrics}/metrics")
    assert "flashgate_edge_prefix_hits_total 2.0" in metrics
    assert "flashgate_edge_prefix_misses_total 3.0" in metrics
    node.close()


def test_a_killed_engine_ends_every_request_in_it_and_in_the_queue(processes: Processes, pack: Path) -> None:
    node = EdgeNode(processes, pack, "--sequences", str(NUM_SEQUENCES))
    before = node.answer(greedy(0)).ids
    calls = [node.begin(endless(number)) for number in range(NUM_SEQUENCES)]
    calls.append(node.generate(greedy(0)))
    eventually(lambda: node.status().queue_depth == 1, "a waiting request")
    node.kill_engine()
    assert {refusal(call)[:2] for call in calls} == {(grpc.StatusCode.UNAVAILABLE, "ENGINE_DIED")}
    eventually(lambda: node.status().engine_restarts == 1 and node.is_ready(), "a new engine")
    with ThreadPoolExecutor(NUM_SEQUENCES) as pool:
        answers = list(pool.map(node.answer, [greedy(0)] * NUM_SEQUENCES))
    assert [answer.ids for answer in answers] == [before] * NUM_SEQUENCES
    node.close()


def test_draining_answers_all_that_run_and_wait(processes: Processes, pack: Path) -> None:
    node = EdgeNode(processes, pack, "--sequences", "2")
    calls = [node.generate(greedy(number, 500)) for number in range(5)]
    eventually(lambda: node.status().running == 2 and node.status().queue_depth == 3, "two running and three waiting")
    node.process.send(signal.SIGTERM)
    assert [len(Answer(list(call)).ids) for call in calls] == [500] * 5
    assert node.process.wait() == 0
    node.close()
