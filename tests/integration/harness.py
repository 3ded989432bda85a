"""Real processes for tests: start one by its command, wait for its ready line, stop it, read what it logged."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

import httpx

_T = TypeVar("_T")

# Generous: a check-out's machine may be busy with other tests.
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0


def command(name: str) -> str:
    """The path of one of the project's commands, beside this interpreter."""
    return str(Path(sys.executable).parent / name)


def eventually(condition: Callable[[], _T | None], what: str, timeout_s: float = 20.0) -> _T:
    """The first truthy value of `condition`. Fails, saying `what` was awaited, after the timeout."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)


class Process:
    """One process in a session of its own. Its stdout lines are kept, its stderr goes to a file."""

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.argv = list(argv)
        self.log = log
        self.lines: list[str] = []
        with log.open("ab") as stderr:
            self._popen = subprocess.Popen(
                self.argv,
                stdout=subprocess.PIPE,
                stderr=stderr,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
                text=True,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def __enter__(self) -> Self:
        """Until the block ends, then stopped."""
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def is_running(self) -> bool:
        return self._popen.poll() is None

    def ready(self, timeout_s: float = READY_TIMEOUT_S) -> dict[str, str]:
        """Wait for the ready line; its `name=value` words."""

        def line() -> str | None:
            ready = next((line for line in list(self.lines) if line.startswith("ready ")), None)
            if ready is None and self._popen.poll() is not None:
                raise AssertionError(f"{self.argv[:2]} exited {self._popen.returncode}: {self.stderr()[-2000:]}")
            return ready

        words = eventually(line, f"ready line of {self.argv[:2]}", timeout_s).split()[2:]
        return dict(word.split("=", 1) for word in words)

    def send(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def send_group(self, number: signal.Signals) -> None:
        """What a terminal does on Ctrl-C: the process and all its children get the signal."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """The exit status, all output read."""
        status = self._popen.wait(timeout_s)
        self._reader.join(timeout_s)
        return status

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        if self._popen.poll() is None:
            self.send(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it and whatever it left behind, for sure."""
        self.send_group(signal.SIGKILL)
        self._popen.wait()
        self._reader.join(STOP_TIMEOUT_S)
        if self._popen.stdout is not None:
            self._popen.stdout.close()

    def stderr(self) -> str:
        return self.log.read_text(errors="replace")

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self.lines.append(line.rstrip("\n"))


class Processes:
    """Starts processes and ends them all. `directory` holds their logs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.started: list[Process] = []

    def start(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Process:
        log = self._directory / f"{Path(argv[0]).name}-{len(self.started)}.log"
        process = Process(argv, log, env)
        self.started.append(process)
        return process

    def cloud_stub(self, *options: str) -> Process:
        return self.start([command("flashgate-cloud-stub"), "serve", "--port", "0", "--metrics-port", "0", *options])

    def edge(self, pack: Path, *options: str) -> Process:
        argv = [command("flashgate-edge"), "serve", str(pack), "--port", "0", "--metrics-port", "0", *options]
        return self.start(argv)

    def gateway(
        self, *options: str, launcher: Sequence[str] | None = None, env: Mapping[str, str] | None = None
    ) -> Process:
        """`launcher` stands in for the command, to change the program before it runs."""
        ports = ("--grpc-port", "0", "--http-port", "0", "--drain-seconds", "1")
        return self.start([*(launcher or [command("flashgate")]), "serve", *ports, *options], env)

    def close(self) -> None:
        for process in reversed(self.started):
            process.kill()


def get(url: str) -> str:
    """A GET's body, without the environment's proxies. Fails on an error status."""
    with httpx.Client(trust_env=False, timeout=10) as client:
        return client.get(url).raise_for_status().text


def until_ready(gateway: Process, *backends: str) -> None:
    """Wait until the gateway could send to all of `backends`."""

    def all_ready(client: httpx.Client) -> bool:
        # 503 while no backend is ready: the text says which is.
        lines = client.get(f"http://{gateway.ready()['http']}/readyz").text.splitlines()
        return {f"{backend}: ready" for backend in backends} <= set(lines)

    with httpx.Client(trust_env=False, timeout=10) as client:
        eventually(lambda: all_ready(client), f"the gateway to see {', '.join(backends)}")
