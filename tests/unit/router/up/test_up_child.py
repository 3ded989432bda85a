"""Children of `flashgate up`: known by their ready line, and never left behind."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import pytest

from router.errors import ConfigError
from router.up.child import Child

READY = "print('ready test a=1 b=x=y', flush=True);"
Spawn = Callable[[str], Coroutine[None, None, Child]]


@pytest.fixture
async def spawn() -> AsyncIterator[Spawn]:
    """Starts children that run Python code, and ends them."""
    children: list[Child] = []

    async def spawn(code: str) -> Child:
        children.append(await Child.spawn("test child", [sys.executable, "-c", code]))
        return children[-1]

    yield spawn
    for child in children:
        await child.stop(0)


def is_running(pid: int) -> bool:
    """False for a zombie too: what nobody has reaped yet has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while is_running(pid):
            await asyncio.sleep(0.01)


async def test_the_ready_line_gives_its_values(spawn: Spawn) -> None:
    child = await spawn(f"print('loading'); {READY} input()")
    assert await child.ready() == {"a": "1", "b": "x=y"}


async def test_an_end_before_the_ready_line_is_an_error_with_the_status(spawn: Spawn) -> None:
    child = await spawn("raise SystemExit(3)")
    with pytest.raises(ConfigError, match=r"test child ended with status 3 before"):
        await child.ready()


async def test_an_end_is_noticed_although_another_process_holds_the_pipe(spawn: Spawn) -> None:
    child = await spawn(
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])"
    )
    with pytest.raises(ConfigError, match="status 0"):
        await child.ready()


async def test_a_child_that_goes_on_printing_is_not_blocked(spawn: Spawn) -> None:
    child = await spawn(f"{READY} print('x' * 1_000_000)")
    await child.ready()
    async with asyncio.timeout(20):
        assert await child.ended() == 0


async def test_a_working_directory_with_a_package_of_the_same_name_does_no_harm(
    spawn: Spawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "router").mkdir()
    (tmp_path / "router" / "__init__.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    child = await spawn(READY)
    assert await child.ready() == {"a": "1", "b": "x=y"}


async def test_a_willing_child_is_stopped_by_sigterm(spawn: Spawn) -> None:
    child = await spawn(f"import signal; {READY} signal.pause()")
    await child.ready()
    assert await child.stop(20)
    assert await child.ended() == -signal.SIGTERM


async def test_a_stuck_child_is_killed_with_what_it_started(spawn: Spawn) -> None:
    grandchild = "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    grandchild += "p = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']);"
    child = await spawn(f"{grandchild} print('ready', f'pid={{p.pid}}', flush=True); signal.pause()")
    pid = int((await child.ready())["pid"])
    assert not await child.stop(0.2)
    assert await child.ended() == -signal.SIGKILL
    await until_gone(pid)


async def test_what_a_dead_child_started_is_ended(spawn: Spawn) -> None:
    child = await spawn(
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']);"
        "print('ready', f'pid={p.pid}', flush=True)"
    )
    pid = int((await child.ready())["pid"])
    assert await child.ended() == 0
    await until_gone(pid)


async def test_stopping_twice_is_harmless(spawn: Spawn) -> None:
    child = await spawn("")
    assert await child.stop(20)
    assert await child.stop(20)


async def test_a_child_dies_with_a_parent_that_was_killed() -> None:
    parent = (
        "import asyncio, sys; from router.up.child import Child\n"
        "async def main():\n"
        '    code = \'import os, signal; print("ready", f"pid={os.getpid()}", flush=True); signal.pause()\'\n'
        "    child = await Child.spawn('c', [sys.executable, '-c', code])\n"
        "    print((await child.ready())['pid'], flush=True)\n"
        "    await child.ended()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert is_running(pid)
        process.kill()
    await until_gone(pid)


def test_a_tether_to_a_parent_that_is_gone_starts_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "started"
    argv = [sys.executable, "-m", "router.up.tether", str(os.getpid() + 1), "/usr/bin/touch", str(marker)]
    assert subprocess.run(argv, check=False).returncode == 1
    assert not marker.exists()
