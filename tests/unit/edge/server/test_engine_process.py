"""The engine process as a real one, spoken to over its pipes."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
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

    def events_until(self, is_last: Callable[[pipe.Event], bool]) -> list[pipe.Event]:
        """All events of steps, up to the step that brings the one awaited."""
        events: list[pipe.Event] = []
        while not any(is_last(event) for event in events):
            message = self.read()
            assert not isinstance(message, pipe.Crashed)
            events += message.events if isinstance(message, pipe.Step) else []
        return events

    def first_event_of(self, job: int) -> None:
        self.events_until(lambda event: event.job == job)

    def end_of(self, job: int) -> list[pipe.Event]:
        """The events of one request, up to its end."""
        events = self.events_until(lambda event: event.job == job and isinstance(event, pipe.Finished | pipe.Failed))
        return [event for event in events if event.job == job]

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
    started, *tokens, finished = child.end_of(1)
    assert started == pipe.Started(1, 1)
    assert [token.token for token in tokens if isinstance(token, pipe.Token)] == [100, 101, 102]
    assert finished == pipe.Finished(1, "length", pipe.Worked(15, 30, 0, 0))


def test_requests_that_come_during_others_share_their_steps(child: Child) -> None:
    child.generate(1, fake.SLOW, 1000)
    child.events_until(lambda event: isinstance(event, pipe.Token))
    child.generate(2, fake.SLOW, 3)
    step = child.read()
    while not (isinstance(step, pipe.Step) and {event.job for event in step.events} == {1, 2}):
        step = child.read()
    assert step.began_s < step.ended_s


def test_the_end_of_stdin_ends_it_even_at_work(child: Child) -> None:
    child.generate(1, fake.HANG)
    child.events_until(lambda event: isinstance(event, pipe.Token))
    assert child.end()[0] == 0


def test_a_cancellation_is_seen_during_a_prompt_and_between_tokens(child: Child) -> None:
    for job, kind in ((1, fake.LONG_PROMPT), (2, fake.SLOW)):
        child.generate(job, kind, 100_000)
        child.first_event_of(job)
        child.send(pipe.Cancel(job))
        assert child.end_of(job)[-1] == pipe.Failed(job, "CancelledError", "the request was cancelled")


def test_a_request_that_comes_during_a_long_step_can_be_cancelled_in_it(child: Child) -> None:
    child.generate(1, fake.LONG_PROMPT)
    child.generate(2, fake.COUNT)
    child.send(pipe.Cancel(2))
    child.send(pipe.Cancel(1))
    waited_for = {1, 2}

    def is_last(event: pipe.Event) -> bool:
        if isinstance(event, pipe.Failed):
            waited_for.discard(event.job)
        return not waited_for

    assert child.events_until(is_last)


def test_cancelling_what_is_over_or_unknown_changes_nothing(child: Child) -> None:
    child.send(pipe.Cancel(5))
    child.generate(5, fake.COUNT, 1)
    child.end_of(5)
    child.send(pipe.Cancel(5))
    child.generate(6, fake.COUNT, 1)
    assert isinstance(child.end_of(6)[-1], pipe.Finished)


def test_a_long_prompt_gives_signs_of_life(child: Child) -> None:
    child.generate(1, fake.LONG_PROMPT)
    child.read_until(pipe.Alive)
    assert isinstance(child.read(), pipe.Alive)


def test_an_expected_error_ends_only_its_request(child: Child) -> None:
    child.generate(3, fake.SLOW, 100)
    for job, kind, error, text in (
        (1, fake.REFUSE, "RequestError", "refused before"),
        (2, fake.BAD_DISK, "StorageError", "layer 3: checksum"),
    ):
        child.generate(job, kind)
        failed = child.end_of(job)[-1]
        assert isinstance(failed, pipe.Failed)
        assert failed.error == error
        assert text in failed.message
    assert isinstance(child.end_of(3)[-1], pipe.Finished)


def test_an_unforeseen_error_ends_the_process_and_quotes_nothing(child: Child) -> None:
    child.generate(1, fake.SLOW, 100_000)
    child.generate(2, fake.BUG)
    last = child.read_until(pipe.Crashed)[-1]
    child.process.wait(TIMEOUT_S)
    status, stderr = child.end()
    assert (last, status) == (pipe.Crashed("ValueError"), 70)
    assert b"fake_engine.py" in stderr
    assert b"canary" not in stderr


def test_a_line_that_is_no_command_ends_the_process_and_is_not_quoted(child: Child) -> None:
    assert child.process.stdin is not None
    child.process.stdin.write(b"canary\n")
    child.process.stdin.flush()
    assert child.read_until(pipe.Crashed)[-1] == pipe.Crashed("PipeError")
    child.process.wait(TIMEOUT_S)
    assert b"canary" not in child.end()[1]


def test_stray_prints_go_to_stderr_and_not_between_the_answers(child: Child) -> None:
    child.generate(1, fake.PRINT)
    child.end_of(1)
    assert b"a stray line" in child.end()[1]


def test_the_signals_of_the_servers_group_are_not_its_own(child: Child) -> None:
    child.process.send_signal(signal.SIGINT)
    child.process.send_signal(signal.SIGTERM)
    child.generate(1, fake.COUNT, 1)
    assert isinstance(child.end_of(1)[-1], pipe.Finished)


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
