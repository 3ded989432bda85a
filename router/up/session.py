"""One `flashgate up` from the first check to the last child's end."""

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from router import logging
from router.policy.load import load_file
from router.up.addresses import HOST, Ports, check_free
from router.up.demo_model import data_directory, demo_model
from router.up.probe import until_served
from router.up.stack import Stack, StackOptions, find_command


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What the user asked for. Without a model, the demo model is built and kept in `data`."""

    ports: Ports
    memory: str
    model: Path | None = None
    policy: Path | None = None
    cloud_record: Path | None = None
    data: Path | None = None


async def up(options: UpOptions) -> None:
    """Run until SIGTERM, SIGINT or SIGHUP (the terminal is closed); a second one stops waiting for answers in progress.

    Raises: ConfigError, PolicyError.
    """
    check_free(options.ports)
    log = logging.configure("up")
    stopping = asyncio.Event()
    stacks: list[Stack] = []

    def stop() -> None:
        if stopping.is_set():
            for stack in stacks:
                stack.hurry()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)

    serving = asyncio.create_task(_serve(options, stacks, log))
    waiting = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            # It only ends by an error.
            await serving
    finally:
        log.info("stopping")
        waiting.cancel()
        serving.cancel()
        await asyncio.wait((serving, waiting))
        for stack in stacks:
            await stack.stop()


async def _serve(options: UpOptions, stacks: list[Stack], log: logging.Logger) -> None:
    if options.policy is not None:
        # The gateway starts last: a fault in its file should not wait for a large model to load.
        load_file(options.policy)
    model = options.model
    if model is None:
        data = options.data or data_directory(os.environ)
        model = await demo_model(data, find_command("flashgate-edge"))
    stack = Stack(
        StackOptions(options.ports, model.absolute(), options.memory, options.policy, options.cloud_record), log
    )
    stacks.append(stack)
    await stack.start()
    status = await until_served(f"{HOST}:{stack.ports.grpc}")
    _announce(stack, status.policy_hash)
    await stack.watch()


def _announce(stack: Stack, policy_hash: str) -> None:
    """The hint before the line, so that whoever waits for the line finds everything said."""
    ports = stack.ports
    address = "" if ports.grpc == Ports().grpc else f" --address {HOST}:{ports.grpc}"
    sys.stderr.write(_HINT.format(address=address, http=f"http://{HOST}:{ports.http}"))
    sys.stderr.flush()
    sys.stdout.write(
        f"ready flashgate gateway-grpc={HOST}:{ports.grpc} http={HOST}:{ports.http} edge={HOST}:{ports.edge} "
        f"edge-metrics={HOST}:{ports.edge_metrics} cloud={HOST}:{ports.cloud} "
        f"cloud-metrics={HOST}:{ports.cloud_metrics} model={stack.model} policy={policy_hash}\n"
    )
    sys.stdout.flush()


_HINT = """\
try this in another terminal:
  flashgate ask "Why is the sky blue?"{address}
  flashgate ask "A patient of mine has a rash." --tags phi{address}
  curl {http}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"messages": [{{"role": "user", "content": "hello"}}], "max_tokens": 16}}'
  curl {http}/metrics
Ctrl-C stops everything.
"""
