"""The engine process as a real one, spoken to over its pipes."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.sampler import SamplingParams
from edge.server import pipe
from tests.unit.edge.server import fake_engine as fake

SCRIPT = Path(__file__).with_name("fake_engine.py")
TIMEOUT_S = 30


class Child:
    def __init__(self, path: str = "") -> None:
        command = [sys.executable, str(SCRIPT)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.send(pipe.Load(path, 1, 4096, 1))

    def send(self, message: pipe.Message) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(pipe.to_line(message))
        self.process.stdin.flush()

    def read(self) -> pipe.Message:
        assert self.process.stdout is not None
        return pipe.from_line(self.process.stdout.readline())

    def read_until(self, *kinds: type[pipe.Message]) -> list[pipe.Message]:
        messages = [self.read()]
        while not isinstance(messages[-1], kinds):
            messages.append(self.read())
        return messages

    def generate(self, job: int, kind: int, max_tokens: int = 5) -> None:
        self.send(pipe.Generate(job, [kind], SamplingParams(max_tokens=max_tokens)))

    def end(self) -> tuple[int, bytes]:
        """Close stdin; the exit status and what stderr held."""
        _, stderr = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, stderr


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    child.read_until(pipe.Ready)
    yield child
    child.process.kill()
    child.process.communicate()


def test_a_request_is_answered_token_by_token(child: Child) -> None:
    child.generate(1, fake.COUNT, 3)
    messages = child.read_until(pipe.Finished)
    assert [message.token for message in messages if isinstance(message, pipe.Token)] == [100, 101, 102]
    assert isinstance(messages[-1], pipe.Finished)
    assert messages[-1].counters.expert_lookups == 30


def test_the_end_of_stdin_ends_it_even_at_work(child: Child) -> None:
    child.generate(1, fake.HANG)
    child.read_until(pipe.Token)
    assert child.end()[0] == 0


def test_a_cancellation_is_seen_during_a_prompt_and_between_tokens(child: Child) -> None:
    for job, kind in ((1, fake.LONG_PROMPT), (2, fake.SLOW)):
        child.generate(job, kind, 100_000)
        child.read_until(pipe.Alive, pipe.Token)
        child.send(pipe.Cancel(job))
        last = child.read_until(pipe.Failed)[-1]
        assert isinstance(last, pipe.Failed)
        assert (last.job, last.error) == (job, "CancelledError")


def test_cancelling_what_is_over_or_unknown_changes_nothing(child: Child) -> None:
    child.send(pipe.Cancel(5))
    child.generate(5, fake.COUNT, 1)
    child.read_until(pipe.Finished)
    child.send(pipe.Cancel(5))
    child.generate(6, fake.COUNT, 1)
    assert isinstance(child.read_until(pipe.Finished, pipe.Failed)[-1], pipe.Finished)


def test_a_long_prompt_gives_signs_of_life(child: Child) -> None:
    child.generate(1, fake.LONG_PROMPT)
    assert isinstance(child.read(), pipe.Alive)
    assert isinstance(child.read(), pipe.Alive)


def test_an_expected_error_ends_only_its_request(child: Child) -> None:
    for job, kind, text in ((1, fake.REFUSE, "refused before"), (2, fake.BAD_DISK, "layer 3: checksum")):
        child.generate(job, kind)
        failed = child.read_until(pipe.Failed)[-1]
        assert isinstance(failed, pipe.Failed)
        assert failed.error == "StorageError"
        assert text in failed.message
    child.generate(3, fake.COUNT, 1)
    assert isinstance(child.read_until(pipe.Finished)[-1], pipe.Finished)


def test_an_unforeseen_error_ends_the_process_and_quotes_nothing(child: Child) -> None:
    child.generate(1, fake.BUG)
    failed = child.read_until(pipe.Failed)[-1]
    child.process.wait(TIMEOUT_S)
    status, stderr = child.end()
    assert isinstance(failed, pipe.Failed)
    assert (failed.error, status) == ("ValueError", 70)
    assert b"fake_engine.py" in stderr
    assert b"canary" not in stderr + failed.message.encode()


def test_stray_prints_go_to_stderr_and_not_between_the_answers(child: Child) -> None:
    child.generate(1, fake.PRINT)
    child.read_until(pipe.Finished)
    assert b"a stray line" in child.end()[1]


def test_the_signals_of_the_servers_group_are_not_its_own(child: Child) -> None:
    child.process.send_signal(signal.SIGINT)
    child.process.send_signal(signal.SIGTERM)
    child.generate(1, fake.COUNT, 1)
    assert isinstance(child.read_until(pipe.Finished)[-1], pipe.Finished)


@pytest.mark.parametrize(
    ("path", "error"), [("damaged", "PackError"), ("greedy", "BudgetError"), ("mystery", "RuntimeError")]
)
def test_why_it_cannot_load_is_reported(path: str, error: str) -> None:
    child = Child(path)
    failed = child.read_until(pipe.LoadFailed)[-1]
    child.process.wait(TIMEOUT_S)
    assert isinstance(failed, pipe.LoadFailed)
    assert failed.error == error
    assert child.end()[0] == 1
