"""The three children together: their order, their restarts, their end."""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from router.errors import ConfigError
from router.logging import Logger
from router.up.addresses import HOST, Ports
from router.up.child import Child

# How long answers in progress may take to end, and what a child may take on top of it.
DRAIN_S = 10
GRACE_S = DRAIN_S + 5.0
_FIRST_DELAY_S = 0.5
_LAST_DELAY_S = 30.0
# A child that served this long has earned a prompt restart.
_HEALTHY_S = 60.0


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What to start."""

    ports: Ports
    model: Path
    memory: str
    policy: Path | None = None
    cloud_record: Path | None = None


def find_command(name: str) -> str:
    """The command beside this interpreter, else on the PATH. Raises ConfigError."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        raise ConfigError(
            f"the command {name} is neither beside {sys.executable} nor on the PATH: install flashgate again"
        )
    return found


class Stack:
    """Edge node, cloud stub, gateway. `start` once, `watch` until cancelled, `stop` always."""

    def __init__(self, options: StackOptions, log: Logger) -> None:
        self._options = options
        self._ports = options.ports
        self._log = log
        self._running: dict[str, Child] = {}
        self._hurry = asyncio.Event()
        self.model = ""
        self._cloud_model = ""

    @property
    def ports(self) -> Ports:
        """Where the children listen; after `start` without any 0."""
        return self._ports

    async def start(self) -> None:
        """Start all three; each can serve when this returns. Raises ConfigError."""
        edge, cloud = await self._start_lanes()
        self.model = edge.get("model", "")
        self._cloud_model = cloud.get("model", "")
        self._ports = self._ports.with_ready(
            edge=edge["grpc"], edge_metrics=edge["metrics"], cloud=cloud["grpc"], cloud_metrics=cloud["http"]
        )
        gateway = await self._start("gateway", self._gateway_argv)
        self._ports = self._ports.with_ready(grpc=gateway["grpc"], http=gateway["http"])

    async def watch(self) -> None:
        """Restart whatever ends, until cancelled."""
        argvs = {"edge node": self._edge_argv, "cloud stub": self._cloud_argv, "gateway": self._gateway_argv}
        async with asyncio.TaskGroup() as group:
            for name, argv in argvs.items():
                group.create_task(self._keep(name, argv))

    async def stop(self) -> None:
        """Stop the gateway, then both lanes, each for certain; `hurry` ends the waiting."""
        for names in (("gateway",), ("edge node", "cloud stub")):
            children = [self._running[name] for name in names if name in self._running]
            await asyncio.gather(*(self._stop(child) for child in children))

    def hurry(self) -> None:
        """Stop waiting for what still drains."""
        self._hurry.set()

    async def _start_lanes(self) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Both at once: a large model takes its time. If one fails, the other is not waited for."""
        edge = asyncio.create_task(self._start("edge node", self._edge_argv))
        cloud = asyncio.create_task(self._start("cloud stub", self._cloud_argv))
        try:
            return await asyncio.gather(edge, cloud)
        finally:
            edge.cancel()
            cloud.cancel()

    async def _start(self, name: str, argv: Callable[[], list[str]]) -> Mapping[str, str]:
        self._running[name] = child = await Child.spawn(name, argv())
        return await child.ready()

    async def _keep(self, name: str, argv: Callable[[], list[str]]) -> None:
        delay_s = _FIRST_DELAY_S
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            status = await self._running[name].ended()
            if clock() - began > _HEALTHY_S:
                delay_s = _FIRST_DELAY_S
            self._log.error("child_ended", child=name, status=status, restart_in_s=delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _LAST_DELAY_S)
            try:
                await self._start(name, argv)
            except ConfigError:
                continue
            self._log.info("child_restarted", child=name)

    async def _stop(self, child: Child) -> None:
        stopping = asyncio.create_task(child.stop(GRACE_S))
        hurrying = asyncio.create_task(self._hurry.wait())
        await asyncio.wait((stopping, hurrying), return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        if not stopping.done():
            stopping.cancel()
            await asyncio.wait((stopping,))
            stopping = asyncio.create_task(child.stop(0))
        if not await stopping:
            self._log.warning("child_killed", child=child.name, grace_s=GRACE_S)

    def _edge_argv(self) -> list[str]:
        return [
            *(find_command("flashgate-edge"), "serve", str(self._options.model), "--memory", self._options.memory),
            *("--port", str(self._ports.edge), "--metrics-port", str(self._ports.edge_metrics)),
            *("--drain-seconds", str(DRAIN_S)),
        ]

    def _cloud_argv(self) -> list[str]:
        record = self._options.cloud_record
        return [
            *(find_command("flashgate-cloud-stub"), "serve"),
            *("--port", str(self._ports.cloud), "--metrics-port", str(self._ports.cloud_metrics)),
            *(("--record", str(record)) if record else ()),
        ]

    def _gateway_argv(self) -> list[str]:
        policy = self._options.policy
        return [
            *(find_command("flashgate"), "serve"),
            *("--grpc-port", str(self._ports.grpc), "--http-port", str(self._ports.http)),
            *("--drain-seconds", str(DRAIN_S)),
            *("--edge", f"{HOST}:{self._ports.edge}", "--cloud", f"{HOST}:{self._ports.cloud}"),
            # The edge tells its model's name when asked; CloudService has no such question.
            *(("--cloud-model", self._cloud_model) if self._cloud_model else ()),
            *(("--policy", str(policy)) if policy else ()),
        ]
