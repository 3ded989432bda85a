"""Looks at a backend again and again, in the background."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable


class Watcher:
    """Calls `look` at once, then whenever the seconds that it returned have passed or `nudge` was called.

    `look` bounds its own time and turns every expected failure into a state; anything else ends the watch with the
    process, loudly, rather than leaving a state that no longer changes.
    """

    def __init__(self, look: Callable[[], Awaitable[float]]) -> None:
        self._look = look
        self._nudged = asyncio.Event()
        self._looked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns after the first look."""
        self._task = asyncio.create_task(self._watch())
        await self._looked.wait()

    def nudge(self) -> None:
        """Look again soon: something was seen that the last look did not know."""
        self._nudged.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        while True:
            self._nudged.clear()
            interval_s = await self._look()
            self._looked.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nudged.wait(), interval_s)
