"""An engine process without a model: the first prompt token says how it behaves. Run as a script by the tests."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence

from edge.errors import BudgetError, CancelledError, PackError, StorageError
from edge.sampler import SamplingParams
from edge.server import engine_process, pipe

COUNT, SLOW, DIE, HANG, BAD_DISK, BUG, PRINT, REFUSE, LONG_PROMPT = range(1, 10)
FIRST_TOKEN = 100
IN_PROMPT = "canary of the prompt"


class FakeEngine:
    """Counts up from FIRST_TOKEN."""

    def __init__(self) -> None:
        self._lookups = 0
        self._never = threading.Event()

    def generate(self, ids: Sequence[int], sampling: SamplingParams, should_stop: Callable[[], bool]) -> Iterator[int]:
        kind = ids[0]
        if kind == REFUSE:
            raise StorageError("refused before the first token")
        if kind == LONG_PROMPT:
            while not should_stop():
                self._never.wait(0.01)
            raise CancelledError("the request was cancelled")
        return self._tokens(kind, sampling.max_tokens, should_stop)

    def _tokens(self, kind: int, max_tokens: int, should_stop: Callable[[], bool]) -> Iterator[int]:
        for number in range(max_tokens):
            if should_stop():
                raise CancelledError("the request was cancelled")
            if number == 2:
                self._misbehave(kind)
            if kind == SLOW:
                self._never.wait(0.005)
            self._lookups += 10
            yield FIRST_TOKEN + number

    def _misbehave(self, kind: int) -> None:
        if kind == DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == HANG:
            self._never.wait()
        elif kind == BAD_DISK:
            raise StorageError("layer 3: checksum")
        elif kind == BUG:
            raise ValueError(IN_PROMPT)
        elif kind == PRINT:
            os.write(1, b"a stray line\n")

    def finish_reason(self) -> str:
        return "length"

    def ready(self) -> pipe.Ready:
        return pipe.Ready("fake", 4096, 1000, self.counters())

    def counters(self) -> pipe.Counters:
        return pipe.Counters(self._lookups // 2, self._lookups, self._lookups * 4096, self._lookups / 1000, 1)


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
