"""Holds the policy in force and replaces it when its file changes. A file that does not load changes nothing."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from router.errors import PolicyError
from router.policy.load import load_built_in, load_file
from router.policy.policy import Policy

POLL_INTERVAL_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class PolicyEvent:
    """One attempt to put a policy in force. `policy_hash`: of the policy that is in force afterwards."""

    outcome: Literal["loaded", "refused"]
    policy_hash: str
    # Every finding of a refused file; it quotes the file only.
    error: str = ""


PolicyObserver = Callable[[PolicyEvent], None]

# What tells that a file is another one: time, inode (editors replace files), size.
_Signature = tuple[int, int, int]


class LivePolicy:
    """Readers take `current` once per request: it is replaced in one step, never changed."""

    def __init__(self, path: Path | None, current: Policy, observe: PolicyObserver) -> None:
        """Use `open`."""
        self.current = current
        # Why the file's newer content was refused; empty while `current` is the file's.
        self.error = ""
        self._path = path
        self._observe = observe
        self._seen = _signature(path)

    @classmethod
    def open(cls, path: Path | None, observe: PolicyObserver = lambda _: None) -> "LivePolicy":
        """The policy in `path`, or the built-in one, which never changes. Raises: PolicyError."""
        # Looked at before it is read: a change in between is then found by the first poll.
        seen = _signature(path)
        live = cls(path, load_built_in() if path is None else load_file(path), observe)
        live._seen = seen
        observe(PolicyEvent("loaded", live.current.hash))
        return live

    def reload(self) -> bool:
        """Read the file now; whether it is in force afterwards."""
        if self._path is None:
            return True
        self._seen = _signature(self._path)
        try:
            policy = load_file(self._path)
        except Exception as exc:
            # Also what we did not foresee: the watcher must outlive any file.
            self.error = str(exc) if isinstance(exc, PolicyError) else f"{self._path}: {type(exc).__name__}"
            self._observe(PolicyEvent("refused", self.current.hash, self.error))
            return False
        self.current, self.error = policy, ""
        self._observe(PolicyEvent("loaded", policy.hash))
        return True

    def poll(self) -> None:
        """Reload if the file is another one than when it was last read."""
        if self._path is not None and _signature(self._path) != self._seen:
            self.reload()

    async def watch(self, interval_s: float = POLL_INTERVAL_S) -> None:
        """Poll until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            self.poll()


def _signature(path: Path | None) -> _Signature | None:
    """None if there is no file."""
    try:
        stat = None if path is None else path.stat()
    except OSError:
        return None
    return None if stat is None else (stat.st_mtime_ns, stat.st_ino, stat.st_size)
