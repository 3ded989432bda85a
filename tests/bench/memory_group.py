"""Commands under a memory limit of the kernel's, page cache included: a control group of their own, version 1 or 2."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
# `sh` puts itself into the group and becomes the command: nothing of the command runs outside.
ENTER = ["sh", "-c", 'echo $$ > "$0" && exec "$@"']


class NoMemoryGroup(Exception):  # noqa: N818 a fact about the machine
    """This machine lets us have no memory control group; the message says why."""


@dataclass(frozen=True, slots=True)
class Files:
    """The names that a version of control groups has for the same things."""

    limit: str
    swap_limit: str
    swap_limit_bytes: int | None  # None: the limit of memory and swap together, equal to that of memory
    peak: str
    events: str  # has a line "oom_kill N"


V1 = Files(
    "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", None, "memory.max_usage_in_bytes", "memory.oom_control"
)
V2 = Files("memory.max", "memory.swap.max", 0, "memory.peak", "memory.events")


class MemoryGroup:
    """Made by `memory_group`."""

    def __init__(self, path: Path, files: Files) -> None:
        self._path = path
        self._files = files

    def argv(self, command: Sequence[str]) -> list[str]:
        """`command`, to be run inside."""
        return [*ENTER, str(self._path / "cgroup.procs"), *command]

    def run(self, command: Sequence[str], timeout_s: float = 300) -> "subprocess.CompletedProcess[str]":
        """Run `command` inside to its end."""
        return subprocess.run(self.argv(command), capture_output=True, text=True, timeout=timeout_s, check=False)

    @property
    def peak_bytes(self) -> int:
        """The most that was ever charged to the group: processes, page cache, kernel memory of theirs."""
        return int((self._path / self._files.peak).read_text())

    @property
    def oom_kills(self) -> int:
        """Processes that the kernel killed because of the limit."""
        lines = dict(line.split() for line in (self._path / self._files.events).read_text().splitlines())
        return int(lines["oom_kill"])


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """A group of its own with exactly that much memory and no swap. Raises NoMemoryGroup."""
    reasons = []
    for parent, files in parents():
        path = parent / f"flashgate-{os.getpid()}"
        try:
            path.mkdir()
        except OSError as error:
            reasons.append(f"{path}: {error.strerror}")
            continue
        try:
            try:
                _limit(path, files, limit_bytes)
            except OSError as error:
                reasons.append(f"{path}: {error.strerror}")
                continue
            yield MemoryGroup(path, files)
            return
        finally:
            path.rmdir()
    raise NoMemoryGroup("; ".join(reasons) or f"no memory controller below {ROOT}")


def parents() -> Iterator[tuple[Path, Files]]:
    """Where a group may be made: below our own first, then below the root."""
    places = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, place = line.split(":", 2)
        if "memory" in controllers.split(","):
            root, files = ROOT / controllers, V1
        elif not controllers and (ROOT / "cgroup.controllers").exists():
            root, files = ROOT, V2
        else:
            continue
        places += [(root / place.lstrip("/"), files), (root, files)]
    yield from places


def _limit(path: Path, files: Files, limit_bytes: int) -> None:
    (path / files.limit).write_text(str(limit_bytes))
    swap = path / files.swap_limit
    if swap.exists():  # a kernel without swap accounting has no such file
        swap.write_text(str(limit_bytes if files.swap_limit_bytes is None else files.swap_limit_bytes))
    int((path / files.peak).read_text())  # before Linux 5.19 version 2 has no peak, and is of no use here
