"""The three children together, played by scripts."""

import asyncio
import io
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from router import logging
from router.errors import ConfigError
from router.up import stack as stack_module
from router.up.addresses import Ports
from router.up.stack import Stack, StackOptions

Script = Callable[[str, str], str]

# Says which port it was given (or a made-up one for 0) and writes its life to a log.
SERVER = """
def port(option, free):
    asked = sys.argv[sys.argv.index(option) + 1]
    return "127.0.0.1:" + (free if asked == "0" else asked)

def note(what):
    with open({log!r}, "a") as log:
        log.write(f"{{what}} {name} {{os.getpid()}} " + " ".join(sys.argv[1:]) + "\\n")

def stop(*_):
    note("stopped")
    sys.exit(0)

signal.signal(signal.SIGTERM, stop)
note("started")
print("ready", "{name}", {ready}, flush=True)
while True:
    signal.pause()
"""
READY = {
    "flashgate-edge": '"grpc=" + port("--port", "7001"), "metrics=" + port("--metrics-port", "7002"), "model=m"',
    "flashgate-cloud-stub": '"grpc=" + port("--port", "7003"), "http=" + port("--metrics-port", "7004")',
    "flashgate": '"grpc=" + port("--grpc-port", "7005"), "http=" + port("--http-port", "7006")',
}


class Stage:
    """A stack of played servers, and what they noted."""

    def __init__(self, stack: Stack, log: Path, output: io.StringIO) -> None:
        self.stack = stack
        self._log = log
        self._output = output

    def noted(self, what: str, name: str) -> list[list[str]]:
        """The notes of one kind: process id and arguments."""
        lines = [line.split() for line in self._log.read_text().splitlines()] if self._log.exists() else []
        return [words[2:] for words in lines if words[:2] == [what, name]]

    def order(self, what: str) -> list[str]:
        return [line.split()[1] for line in self._log.read_text().splitlines() if line.startswith(what)]

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._output.getvalue().splitlines()]


Staged = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def staged(tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Staged]:
    """Makes a stage; keyword arguments replace a server's code."""
    stages: list[Stage] = []
    log = tmp_path / "log"

    async def make(**code: str) -> Stage:
        paths = {
            name: script(name, code.get(name.replace("-", "_"), SERVER.format(log=str(log), name=name, ready=ready)))
            for name, ready in READY.items()
        }
        monkeypatch.setattr(stack_module, "find_command", paths.__getitem__)
        monkeypatch.setattr(stack_module, "_FIRST_DELAY_S", 0.01)
        output = io.StringIO()
        options = StackOptions(Ports(0, 0, 0, 0, 0, 0), Path("/pack"), "1GB", Path("p.yaml"), Path("r.jsonl"))
        stages.append(Stage(Stack(options, logging.logger_to(output)), log, output))
        return stages[-1]

    yield make
    for stage in stages:
        stage.stack.hurry()
        await stage.stack.stop()


async def test_all_are_started_by_their_own_commands_with_the_options(staged: Staged) -> None:
    stage = await staged()
    await stage.stack.start()
    assert stage.stack.ports == Ports(7005, 7006, 7001, 7002, 7003, 7004)
    assert stage.stack.model == "m"
    ((_, *edge),) = stage.noted("started", "flashgate-edge")
    ((_, *cloud),) = stage.noted("started", "flashgate-cloud-stub")
    ((_, *gateway),) = stage.noted("started", "flashgate")
    assert " ".join(edge) == "serve /pack --memory 1GB --port 0 --metrics-port 0 --drain-seconds 10"
    assert " ".join(cloud) == "serve --port 0 --metrics-port 0 --record r.jsonl"
    assert " ".join(gateway) == (
        "serve --grpc-port 0 --http-port 0 --drain-seconds 10 "
        "--edge 127.0.0.1:7001 --cloud 127.0.0.1:7003 --policy p.yaml"
    )


async def test_the_gateway_stops_before_the_lanes(staged: Staged) -> None:
    stage = await staged()
    await stage.stack.start()
    await stage.stack.stop()
    assert stage.order("stopped")[0] == "flashgate"
    assert sorted(stage.order("stopped")) == sorted(READY)


@pytest.mark.parametrize("name", READY)
async def test_a_child_that_dies_comes_back_where_it_was(staged: Staged, name: str) -> None:
    stage = await staged()
    await stage.stack.start()
    watching = asyncio.create_task(stage.stack.watch())
    for lives in (2, 3):
        os.kill(int(stage.noted("started", name)[-1][0]), signal.SIGKILL)
        async with asyncio.timeout(20):
            while len(stage.noted("started", name)) < lives:
                await asyncio.sleep(0.01)
    watching.cancel()
    arguments = stage.noted("started", name)[-1]
    port_option = "--grpc-port" if name == "flashgate" else "--port"
    assert arguments[arguments.index(port_option) + 1] in ("7001", "7003", "7005")
    ended = [event for event in stage.events() if event["event"] == "child_ended"]
    assert [event["status"] for event in ended] == [-signal.SIGKILL] * 2
    assert ended[1]["restart_in_s"] > ended[0]["restart_in_s"]
    others = [other for other in READY if other != name]
    assert [len(stage.noted("started", other)) for other in others] == [1, 1]


async def test_a_child_that_cannot_start_ends_the_start(staged: Staged) -> None:
    stage = await staged(flashgate_edge="sys.exit(1)")
    with pytest.raises(ConfigError, match="edge node ended with status 1"):
        await stage.stack.start()
    assert stage.noted("started", "flashgate") == []


async def test_hurry_ends_what_will_not_stop(staged: Staged) -> None:
    stuck = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready x grpc=a:1 http=a:2', flush=True)\n"
    stage = await staged(flashgate=stuck + "while True: signal.pause()")
    await stage.stack.start()
    stopping = asyncio.create_task(stage.stack.stop())
    await asyncio.sleep(0)
    stage.stack.hurry()
    async with asyncio.timeout(5):
        await stopping
    first = stage.events()[0]
    assert (first["event"], first["child"]) == ("child_killed", "gateway")


def test_a_command_is_found_beside_the_interpreter_and_its_absence_is_named() -> None:
    assert stack_module.find_command("flashgate-edge").endswith("/flashgate-edge")
    with pytest.raises(ConfigError, match="no-such-command"):
        stack_module.find_command("no-such-command")
