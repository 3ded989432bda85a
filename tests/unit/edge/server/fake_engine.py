"""An engine process without a model: the first prompt token says how it behaves. Run as a script by the tests."""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

from edge.errors import BudgetError, PackError, RequestError
from edge.server import engine_process, pipe

COUNT, SLOW, DIE, HANG, BAD_DISK, BUG, PRINT, REFUSE, LONG_PROMPT = range(1, 10)
FIRST_TOKEN = 100
IN_PROMPT = "canary of the prompt"
NUM_SEQUENCES = 4


@dataclass
class Sequence:
    kind: int
    prompt_tokens: int
    max_tokens: int
    num_drawn: int = 0
    is_running: bool = False


class FakeEngine:
    """Counts up from FIRST_TOKEN, for NUM_SEQUENCES at once."""

    def __init__(self) -> None:
        self._sequences: dict[int, Sequence] = {}
        self._cancelled: list[int] = []
        self._lookups = 0
        self._never = threading.Event()

    @property
    def has_work(self) -> bool:
        return bool(self._sequences)

    def submit(self, request: pipe.Generate) -> None:
        if request.ids[0] == REFUSE:
            raise RequestError("refused before the first token")
        self._sequences[request.job] = Sequence(request.ids[0], len(request.ids), request.sampling.max_tokens)

    def cancel(self, job: int) -> None:
        if job in self._sequences:
            self._cancelled.append(job)

    def step(self, pulse: Callable[[], None]) -> list[pipe.Event]:
        events: list[pipe.Event] = []
        for job, sequence in list(self._sequences.items())[:NUM_SEQUENCES]:
            pulse()
            if job not in self._cancelled:
                events += self._advance(job, sequence, pulse)
        for job in self._cancelled:
            del self._sequences[job]
            events.append(pipe.Failed(job, "CancelledError", "the request was cancelled"))
        self._cancelled = []
        return events

    def _advance(self, job: int, sequence: Sequence, pulse: Callable[[], None]) -> list[pipe.Event]:
        if not sequence.is_running:
            sequence.is_running = True
            return [pipe.Started(job, sequence.prompt_tokens)]
        if sequence.kind == LONG_PROMPT:
            while job not in self._cancelled:
                self._never.wait(0.01)
                pulse()
            return []
        if sequence.num_drawn == 2:
            self._misbehave(sequence.kind)
        if sequence.num_drawn == 2 and sequence.kind == BAD_DISK:
            del self._sequences[job]
            return [pipe.Failed(job, "StorageError", "layer 3: checksum")]
        if sequence.kind == SLOW:
            self._never.wait(0.005)
        return self._draw(job, sequence)

    def _draw(self, job: int, sequence: Sequence) -> list[pipe.Event]:
        self._lookups += 10
        sequence.num_drawn += 1
        worked = pipe.Worked(5 * sequence.num_drawn, 10 * sequence.num_drawn, 0, 0)
        events: list[pipe.Event] = [pipe.Token(job, FIRST_TOKEN + sequence.num_drawn - 1, worked)]
        if sequence.num_drawn == sequence.max_tokens:
            del self._sequences[job]
            events.append(pipe.Finished(job, "length", worked))
        return events

    def _misbehave(self, kind: int) -> None:
        if kind == DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == HANG:
            self._never.wait()
        elif kind == BUG:
            raise ValueError(IN_PROMPT)
        elif kind == PRINT:
            os.write(1, b"a stray line\n")

    def ready(self) -> pipe.Ready:
        return pipe.Ready("fake", 4096, 1000, NUM_SEQUENCES, self.counters())

    def counters(self) -> pipe.Counters:
        return pipe.Counters(self._lookups // 2, self._lookups, self._lookups * 4096, self._lookups / 1000)


def load(command: pipe.Load, progress: Callable[[int, int], None]) -> FakeEngine:
    """The path says how loading goes."""
    progress(1, 2)
    match command.path:
        case "damaged":
            raise PackError("damaged: the manifest is missing")
        case "greedy":
            raise BudgetError("needs at least 3 GB")
        case "mystery":
            raise RuntimeError("a foreign error")
        case "dies":
            os.kill(os.getpid(), signal.SIGKILL)
    return FakeEngine()


if __name__ == "__main__":
    engine_process.main(load)
