"""The process that runs the engine: `python -m edge.server.engine_process`, started and watched by the server.

Commands come in on stdin, answers go out on what was stdout (see edge.server.pipe). A thread of its own reads the
commands; the engine's thread takes them between steps and before every layer, so that a request that nobody waits for
leaves at the next layer. The end of stdin means that the server is gone: so are we.
"""

import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import BinaryIO, NoReturn, Protocol

from edge import logs
from edge.errors import EdgeError, RequestError
from edge.server import pipe
from edge.server.priority import be_normal

# Often enough for a watchdog and for live metrics, rare enough to cost nothing.
ALIVE_INTERVAL_S = 0.5
# Reading all counters takes about as long as telling a whole step.
COUNTERS_INTERVAL_S = 0.1
LOAD_FAILED_STATUS = 1
INTERNAL_ERROR_STATUS = 70


class RunningEngine(Protocol):
    """What this process needs of an engine; edge.server.engine_adapter's, a small fake in tests."""

    @property
    def has_work(self) -> bool:
        """Whether a request has not come to its end yet."""

    def submit(self, request: pipe.Generate) -> None:
        """Take a request for one of the next steps. Raises: RequestError."""

    def cancel(self, job: int) -> None:
        """Let a request leave; it ends with Failed. Nothing happens if there is none."""

    def step(self, pulse: Callable[[], None]) -> list[pipe.Event]:
        """One pass for all requests; `pulse` is called before every layer and may submit and cancel."""

    def ready(self) -> pipe.Ready: ...

    def counters(self) -> pipe.Counters: ...


LoadEngine = Callable[[pipe.Load, Callable[[int, int], None]], RunningEngine]


class EngineProcess:
    """Serves one engine over two pipes until `commands` ends. `run` returns the process's exit status."""

    def __init__(self, commands: BinaryIO, answers: BinaryIO, load: LoadEngine) -> None:
        self._commands = commands
        self._answers = answers
        self._load = load
        self._received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._last_sign_s = 0.0
        self._last_counters_s = 0.0

    def run(self) -> NoReturn:
        command = pipe.from_line(self._commands.readline())
        if not isinstance(command, pipe.Load):
            raise pipe.PipeError(f"the first command is {type(command).__name__} instead of Load")
        threading.Thread(target=self._read_commands, daemon=True).start()
        engine = self._loaded(command)
        self._send(engine.ready())
        try:
            self._serve(engine)
        except Exception as error:
            self._crash(error)

    def _read_commands(self) -> None:
        for line in self._commands:
            self._received.put(line)
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

    def _serve(self, engine: RunningEngine) -> NoReturn:
        while True:
            if not engine.has_work:
                self._obey(engine, self._received.get())
            self._obey_received(engine)
            if engine.has_work:
                self._step(engine)

    def _step(self, engine: RunningEngine) -> None:
        began_s = time.monotonic()
        events = engine.step(lambda: self._pulse(engine))
        ended_s = time.monotonic()
        counters = None
        if ended_s - self._last_counters_s >= COUNTERS_INTERVAL_S or not engine.has_work:
            self._last_counters_s, counters = ended_s, engine.counters()
        self._send(pipe.Step(began_s, ended_s, events, counters))

    def _pulse(self, engine: RunningEngine) -> None:
        self._obey_received(engine)
        if time.monotonic() - self._last_sign_s >= ALIVE_INTERVAL_S:
            self._send(pipe.Alive(engine.counters()))

    def _obey_received(self, engine: RunningEngine) -> None:
        while not self._received.empty():
            self._obey(engine, self._received.get())

    def _obey(self, engine: RunningEngine, line: bytes) -> None:
        match pipe.from_line(line):
            case pipe.Generate() as command:
                try:
                    engine.submit(command)
                except RequestError as error:
                    now = time.monotonic()
                    refused = pipe.Failed(command.job, type(error).__name__, str(error))
                    self._send(pipe.Step(now, now, [refused]))
            case pipe.Cancel(job=job):
                engine.cancel(job)

    def _crash(self, error: Exception) -> NoReturn:
        """An error nobody foresaw may have left half-read experts behind: only a fresh process is to be trusted.

        Its message is not passed on, since it may quote what it failed on; the places in the code are.
        """
        sys.stderr.write(f"engine: {type(error).__name__}\n")
        traceback.print_tb(error.__traceback__, file=sys.stderr)
        self._send(pipe.Crashed(type(error).__name__))
        _exit(INTERNAL_ERROR_STATUS)

    def _send(self, message: pipe.Message) -> None:
        self._last_sign_s = time.monotonic()
        try:
            self._answers.write(pipe.to_line(message))
            self._answers.flush()
        except BrokenPipeError:
            os._exit(0)


def load_engine(command: pipe.Load, progress: Callable[[int, int], None]) -> RunningEngine:
    """The real one."""
    from edge.server.engine_adapter import EngineAdapter

    return EngineAdapter.load(command, progress)


def main(load: LoadEngine = load_engine) -> NoReturn:
    # The server's signals to its group (Ctrl-C, a service manager's stop) are not ours: it drains, then closes stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    be_normal()
    # A stray print, from here or from native code, must not land between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    logs.configure()
    EngineProcess(sys.stdin.buffer, answers, load).run()


def _exit(status: int) -> NoReturn:
    """Leave at once: an orderly end of the interpreter aborts on the lock of stdin, which the reading thread holds."""
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
