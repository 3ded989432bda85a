"""One child process: started by its own command, known by its ready line, stopped for certain."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence

from router.errors import ConfigError


class Child:
    """A process that says `ready … name=value …` on stdout when it serves. Its stderr is ours."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, stdout: asyncio.StreamReader) -> None:
        """Not called directly: `spawn` is."""
        self.name = name
        self._process = process
        self._stdout = stdout
        self._end = asyncio.create_task(self._reap())
        self._draining: asyncio.Task[None] | None = None

    @classmethod
    async def spawn(cls, name: str, argv: Sequence[str]) -> "Child":
        """Start the process, bound to die with this one."""
        # A pipe of our own: asyncio's would hold back the news of the child's end until its own children closed it too.
        reading, writing = os.pipe()
        stdout = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stdout), os.fdopen(reading, "rb")
        )
        try:
            # A session of its own: Ctrl-C in the terminal reaches us alone, and we stop the children in order.
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                # -P: the working directory may hold a `router` of its own.
                *("-P", "-m", "router.up.tether", str(os.getpid()), *argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                start_new_session=True,
            )
        finally:
            os.close(writing)
        return cls(name, process, stdout)

    async def ready(self) -> Mapping[str, str]:
        """The values of its ready line, once it says it.

        Raises: ConfigError if it ends first. No time limit: loading a large model takes what it takes, and the caller
        may cancel.
        """
        while line := await self._stdout.readline():
            if line.startswith(b"ready "):
                # From here on nobody reads what it prints, and a full pipe would block it.
                self._draining = asyncio.create_task(self._discard())
                return dict(word.split("=", 1) for word in line.decode(errors="replace").split() if "=" in word)
        status = await self.ended()
        raise ConfigError(f"the {self.name} ended with status {status} before it could serve; its message stands above")

    async def ended(self) -> int:
        """The exit status, once it has ended; negative is the signal that killed it."""
        return await asyncio.shield(self._end)

    async def stop(self, grace_s: float) -> bool:
        """SIGTERM, then SIGKILL to it and all it started after `grace_s`. False if it had to be killed."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self.ended(), grace_s)
        except TimeoutError:
            self._kill_group()
            await self.ended()
            return False
        return True

    async def _reap(self) -> int:
        status = await self._process.wait()
        # What it started (the edge's engine) is in its session, and must not outlive it.
        self._kill_group()
        return status

    async def _discard(self) -> None:
        while await self._stdout.read(65536):
            pass

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
