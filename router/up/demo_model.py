"""The model of a first run: small, random, built and packed by the edge's own commands, then kept."""

import asyncio
import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from router.errors import ConfigError

NAME = "random-qwen3_5_moe"
_SCRATCH = ".building-"


def data_directory(environment: Mapping[str, str]) -> Path:
    """Where flashgate keeps data, by the XDG base directory rules (a relative path there is to be ignored)."""
    base = Path(environment.get("XDG_DATA_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".local" / "share") / "flashgate"


async def demo_model(data: Path, edge_command: str) -> Path:
    """The packed demo model below `data`, built if it is not there or not usable by this version.

    Atomic: a pack is moved into place whole. Two first runs at once build one. Raises ConfigError.
    """
    models = data / "models"
    try:
        models.mkdir(parents=True, exist_ok=True)
        async with _locked(models / ".lock"):
            pack = models / NAME
            if not await _is_usable(pack, edge_command):
                await _build(pack, edge_command)
            return pack
    except OSError as exc:
        raise ConfigError(
            f"the demo model cannot be kept in {models}: {exc.strerror}; choose another with --data"
        ) from exc


async def _build(pack: Path, edge_command: str) -> None:
    _say(f"first run: building a small random model in {pack} (its text is noise; --model takes a real one)")
    for left_behind in pack.parent.glob(f"{_SCRATCH}*"):
        shutil.rmtree(left_behind)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=pack.parent) as scratch:
        # The edge names a model after its checkpoint's directory.
        checkpoint, packed = Path(scratch, NAME), Path(scratch, "pack")
        await _run([edge_command, "random", str(checkpoint)])
        await _run([edge_command, "convert", str(checkpoint), str(packed)])
        _replace(pack, packed)


def _replace(pack: Path, packed: Path) -> None:
    if pack.exists():
        # Of an older format, or damaged.
        shutil.rmtree(pack)
    packed.rename(pack)


async def _is_usable(pack: Path, edge_command: str) -> bool:
    """Whether the edge can read it; quiet, because a pack of another version is no error here."""
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(edge_command, "info", str(pack), stdout=quiet, stderr=quiet)
    return await _ended(process) == 0


async def _run(argv: Sequence[str]) -> None:
    """Run to the end, without its closing words; progress and errors stand on stderr. Raises ConfigError."""
    status = await _ended(await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.DEVNULL))
    if status != 0:
        raise ConfigError(f"building the demo model failed: `{' '.join(argv)}` ended with status {status}")


async def _ended(process: asyncio.subprocess.Process) -> int:
    """The exit status; a cancelled wait takes the process with it."""
    try:
        return await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise


@contextlib.asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold an exclusive lock on `path`; the kernel drops it when the process dies."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(0.1)
        yield
    finally:
        os.close(fd)


def _say(text: str) -> None:
    sys.stderr.write(f"flashgate: {text}\n")
