"""The watch on a backend: when it looks, and that nothing ends it."""

import asyncio

import pytest

from router.backends import watcher
from router.backends.watcher import Watcher


class Looks:
    """Counts looks; raises at those in `failing`."""

    def __init__(self, interval_s: float, failing: frozenset[int] = frozenset()) -> None:
        self._interval_s = interval_s
        self._failing = failing
        self.number = 0
        self._changed = asyncio.Condition()

    async def __call__(self) -> float:
        async with self._changed:
            self.number += 1
            self._changed.notify_all()
        if self.number in self._failing:
            raise ValueError("a bug")
        return self._interval_s

    async def reach(self, number: int) -> None:
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: self.number >= number)


async def test_start_returns_after_the_first_look() -> None:
    looks = Looks(1000)
    watch = Watcher(looks)
    await watch.start()
    assert looks.number == 1
    await watch.close()


async def test_looks_again_after_the_interval_and_after_a_nudge() -> None:
    often, seldom = Looks(0.001), Looks(1000)
    watches = [Watcher(often), Watcher(seldom)]
    for watch in watches:
        await watch.start()
    await often.reach(3)
    assert seldom.number == 1
    watches[1].nudge()
    await seldom.reach(2)
    for watch in watches:
        await watch.close()


async def test_unexpected_error_is_logged_and_does_not_end_the_watch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watcher, "AFTER_ERROR_S", 0.001)
    looks = Looks(0.001, frozenset({1, 2}))
    watch = Watcher(looks)
    await watch.start()
    await looks.reach(4)
    await watch.close()
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


async def test_close_before_start_does_nothing() -> None:
    await Watcher(Looks(1)).close()
