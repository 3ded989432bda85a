"""The demo model of a first run: built once, whole or not at all."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from router.errors import ConfigError
from router.up.demo_model import NAME, data_directory, demo_model

Script = Callable[[str, str], str]

# As the edge's command: `random` and `convert` write directories, `info` accepts a pack that holds "whole".
EDGE = """
command, *paths = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(command + "\\n")
if command == "info":
    sys.exit(0 if os.path.exists(os.path.join(paths[0], "whole")) else 1)
os.mkdir(paths[-1])
{before_last_file}
open(os.path.join(paths[-1], "whole"), "w").close()
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "commands"


def edge(script: Script, log: Path, before_last_file: str = "") -> str:
    return script("flashgate-edge", EDGE.format(log=str(log), before_last_file=before_last_file))


def builds(log: Path) -> int:
    return log.read_text().split().count("convert")


async def test_the_first_run_builds_and_the_second_reuses(
    tmp_path: Path, script: Script, log: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = edge(script, log)
    first = await demo_model(tmp_path / "data", command)
    assert first == tmp_path / "data" / "models" / NAME
    assert "noise" in capfd.readouterr().err
    assert await demo_model(tmp_path / "data", command) == first
    assert builds(log) == 1
    assert capfd.readouterr() == ("", "")


async def test_two_first_runs_at_once_build_one(tmp_path: Path, script: Script, log: Path) -> None:
    command = edge(script, log, "time.sleep(0.2)")
    packs = await asyncio.gather(*(demo_model(tmp_path, command) for _ in range(2)))
    assert len(set(packs)) == 1
    assert builds(log) == 1


async def test_a_failed_build_leaves_nothing_and_says_which_command(tmp_path: Path, script: Script, log: Path) -> None:
    command = edge(script, log, "if command == 'convert': sys.exit(5)")
    with pytest.raises(ConfigError, match=r"convert.*status 5"):
        await demo_model(tmp_path / "data", command)
    assert [path.name for path in (tmp_path / "data" / "models").iterdir()] == [".lock"]


async def test_a_build_that_is_interrupted_leaves_nothing(tmp_path: Path, script: Script, log: Path) -> None:
    command = edge(script, log, "if command == 'convert': signal.pause()")
    building = asyncio.create_task(demo_model(tmp_path / "data", command))
    async with asyncio.timeout(20):
        while not log.exists() or "convert" not in log.read_text():
            await asyncio.sleep(0.01)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert [path.name for path in (tmp_path / "data" / "models").iterdir()] == [".lock"]


async def test_a_damaged_pack_and_remains_of_a_killed_build_are_replaced(
    tmp_path: Path, script: Script, log: Path
) -> None:
    models = tmp_path / "models"
    (models / NAME).mkdir(parents=True)
    (models / ".building-old").mkdir()
    pack = await demo_model(tmp_path, edge(script, log))
    assert (pack / "whole").exists()
    assert sorted(path.name for path in models.iterdir()) == [".lock", NAME]


async def test_a_place_that_cannot_be_written_names_the_option(tmp_path: Path, script: Script, log: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--data"):
        await demo_model(tmp_path / "file", edge(script, log))


def test_the_data_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert data_directory({"XDG_DATA_HOME": "/data"}) == Path("/data/flashgate")
    assert data_directory({"XDG_DATA_HOME": "relative"}) == Path("/home/someone/.local/share/flashgate")
    assert data_directory({}) == Path("/home/someone/.local/share/flashgate")
