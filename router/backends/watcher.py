"""Looks at a backend again and again, in the background."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

# Until the next look after one that failed in an unexpected way.
AFTER_ERROR_S = 1.0
_log = logging.getLogger(__name__)


class Watcher:
    """Calls `look` at once, then whenever the seconds that it returned have passed or `nudge` was called.

    `look` bounds its own time and turns every expected failure into a state. An unexpected one is logged, and the
    watch goes on: a state that no longer changes would be worse.
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
            interval_s = await self._look_safely()
            self._looked.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nudged.wait(), interval_s)

    async def _look_safely(self) -> float:
        try:
            return await self._look()
        except Exception:
            _log.exception("looking at a backend failed")
            return AFTER_ERROR_S
