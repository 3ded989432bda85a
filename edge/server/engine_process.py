"""The process that runs the engine: `python -m edge.server.engine_process`, started and watched by the server.

Commands come in on stdin, answers go out on what was stdout (see edge.server.pipe). A thread of its own reads the
commands, so that a cancellation is seen within one token. The end of stdin means that the server is gone: so are we.
"""

import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn, Protocol

from edge import logs
from edge.errors import CancelledError, EdgeError
from edge.sampler import SamplingParams
from edge.server import pipe

if TYPE_CHECKING:
    from edge.engine import Engine

# Often enough for a watchdog and for live metrics, rare enough to cost nothing.
ALIVE_INTERVAL_S = 0.5
LOAD_FAILED_STATUS = 1
INTERNAL_ERROR_STATUS = 70


class RunningEngine(Protocol):
    """What this process needs of an engine; `edge.engine.Engine` behind `load_engine`, a small fake in tests."""

    def generate(
        self, ids: Sequence[int], sampling: SamplingParams, should_stop: Callable[[], bool]
    ) -> Iterator[int]: ...

    def finish_reason(self) -> str:
        """How the last `generate` ended: "stop" or "length"."""
        ...

    def ready(self) -> pipe.Ready: ...

    def counters(self) -> pipe.Counters: ...


LoadEngine = Callable[[pipe.Load, Callable[[int, int], None]], RunningEngine]


class EngineProcess:
    """Serves one engine over two pipes until `commands` ends. `run` returns the process's exit status."""

    def __init__(self, commands: BinaryIO, answers: BinaryIO, load: LoadEngine) -> None:
        self._commands = commands
        self._answers = answers
        self._load = load
        self._jobs: queue.SimpleQueue[pipe.Generate] = queue.SimpleQueue()
        self._cancellations: dict[int, threading.Event] = {}

    def run(self) -> NoReturn:
        command = pipe.from_line(self._commands.readline())
        if not isinstance(command, pipe.Load):
            raise pipe.PipeError(f"the first command is {type(command).__name__} instead of Load")
        threading.Thread(target=self._read_commands, daemon=True).start()
        engine = self._loaded(command)
        self._send(engine.ready())
        while True:
            self._serve(engine, self._jobs.get())

    def _read_commands(self) -> None:
        for line in self._commands:
            command = pipe.from_line(line)
            if isinstance(command, pipe.Generate):
                self._cancellations[command.job] = threading.Event()
                self._jobs.put(command)
            elif isinstance(command, pipe.Cancel) and command.job in self._cancellations:
                self._cancellations[command.job].set()
        # The main thread may be deep in native code: nothing short of this ends the process now.
        os._exit(0)

    def _loaded(self, command: pipe.Load) -> RunningEngine:
        try:
            return self._load(command, lambda done, total: self._send(pipe.Loading(done, total)))
        except Exception as error:
            if not isinstance(error, EdgeError):
                traceback.print_exc(file=sys.stderr)
            self._send(pipe.LoadFailed(type(error).__name__, str(error)))
            _exit(LOAD_FAILED_STATUS)

    def _serve(self, engine: RunningEngine, job: pipe.Generate) -> None:
        pulse = _Pulse(self, engine, self._cancellations[job.job])
        try:
            for token in engine.generate(job.ids, job.sampling, pulse):
                self._send(pipe.Token(job.job, token, engine.counters()))
                pulse.raise_if_cancelled()
            answer: pipe.Message = pipe.Finished(job.job, engine.finish_reason(), engine.counters())
        except EdgeError as error:
            answer = pipe.Failed(job.job, type(error).__name__, str(error), engine.counters())
        except Exception as error:
            self._fail_and_exit(job.job, error, engine.counters())
        del self._cancellations[job.job]
        self._send(answer)

    def _fail_and_exit(self, job: int, error: Exception, counters: pipe.Counters) -> NoReturn:
        """An error nobody foresaw may have left half-read experts behind: only a fresh process is to be trusted.

        Its message is not passed on, since it may quote what it failed on; the places in the code are.
        """
        sys.stderr.write(f"engine: {type(error).__name__}\n")
        traceback.print_tb(error.__traceback__, file=sys.stderr)
        self._send(pipe.Failed(job, type(error).__name__, "the engine failed unexpectedly", counters))
        _exit(INTERNAL_ERROR_STATUS)

    def _send(self, message: pipe.Message) -> None:
        try:
            self._answers.write(pipe.to_line(message))
            self._answers.flush()
        except BrokenPipeError:
            os._exit(0)

    def alive(self, engine: RunningEngine) -> None:
        self._send(pipe.Alive(engine.counters()))


class _Pulse:
    """The engine's `should_stop`; being asked is a sign of life, passed on now and then."""

    def __init__(self, process: EngineProcess, engine: RunningEngine, cancelled: threading.Event) -> None:
        self._process, self._engine, self._cancelled = process, engine, cancelled
        self._next = time.monotonic() + ALIVE_INTERVAL_S

    def __call__(self) -> bool:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + ALIVE_INTERVAL_S
            self._process.alive(self._engine)
        return self._cancelled.is_set()

    def raise_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise CancelledError("the request was cancelled")


def load_engine(command: pipe.Load, progress: Callable[[int, int], None]) -> RunningEngine:
    """The real one."""
    from edge.engine import Engine, EngineOptions

    options = EngineOptions(
        memory_bytes=command.memory_bytes, context_tokens=command.context_tokens, threads=command.threads
    )
    return _Adapter(Engine.load(Path(command.path), options, progress))


def main(load: LoadEngine = load_engine) -> NoReturn:
    # The server's signals to its group (Ctrl-C, a service manager's stop) are not ours: it drains, then closes stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # A stray print, from here or from native code, must not land between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    logs.configure()
    EngineProcess(sys.stdin.buffer, answers, load).run()


class _Adapter:
    """edge.engine.Engine as a RunningEngine."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    def generate(self, ids: Sequence[int], sampling: SamplingParams, should_stop: Callable[[], bool]) -> Iterator[int]:
        return self._engine.generate(ids, sampling, should_stop)

    def finish_reason(self) -> str:
        return self._engine.last.finish_reason

    def ready(self) -> pipe.Ready:
        engine = self._engine
        return pipe.Ready(engine.pack.name, engine.context_tokens, engine.config.vocab_size, self.counters())

    def counters(self) -> pipe.Counters:
        stats = self._engine.stats()
        return pipe.Counters(
            stats.expert_hits, stats.expert_lookups, stats.expert_read_bytes, stats.disk_seconds, stats.memory_bytes
        )


def _exit(status: int) -> NoReturn:
    """Leave at once: an orderly end of the interpreter aborts on the lock of stdin, which the reading thread holds."""
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
