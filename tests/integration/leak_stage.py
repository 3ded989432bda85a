"""The leak test's stage: one cloud stub that records, edges, gateways, and all that any of them ever said."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc
from flashgate.v1 import edge_pb2, edge_pb2_grpc, gateway_pb2, gateway_pb2_grpc

from tests.integration.harness import Process, Processes, get
from tests.integration.leak_probes import Sent

StatusCall = Callable[[], Awaitable[edge_pb2.EdgeServiceGetStatusResponse]]

# Nothing listens on the discard port.
NO_EDGE = "127.0.0.1:9"

# Programs that run the real command after changing it: no option, file or variable can do the same to an installation.
_LAUNCH = "import sys; from router.cli import main; sys.exit(main())"
BROKEN_DETECTOR = f"""
import router.privacy.detect as detect
def broken(request):
    raise RuntimeError(request.messages[0].content)
detect.scan = broken
{_LAUNCH}
"""
# What the test must be able to see: a floor that forbids nothing, and a detector that talks.
LEAKING = f"""
import sys
import router.privacy.detect as detect
import router.privacy.tags as tags
from router.privacy.reach import Reach
tags.BUILT_IN = dict.fromkeys(tags.BUILT_IN, Reach.CLOUD)
def talking(request):
    print(request.messages[0].content, file=sys.stderr, flush=True)
    return {{}}
detect.scan = talking
{_LAUNCH}
"""


class Stage:
    """Processes that live as long as the module; each is started when a test first needs it."""

    def __init__(self, processes: Processes, pack: Path, directory: Path) -> None:
        self._processes = processes
        self._pack = pack
        self._directory = directory
        self.record = directory / "record.jsonl"
        # Texts that the gateway said about requests: explanations, statuses.
        self.said: list[str] = []

    @cached_property
    def cloud(self) -> Process:
        return self._processes.cloud_stub("--record", str(self.record))

    @cached_property
    def edge(self) -> Process:
        """An edge that nobody harms."""
        return self._processes.edge(self._pack, "--memory", "300MB", "--threads", "1")

    @cached_property
    def victim(self) -> Process:
        """An edge to be stopped, continued and killed; its queue holds all that a test sends."""
        return self._processes.edge(self._pack, "--memory", "300MB", "--threads", "1", "--queue", "500")

    def signal_engine(self, number: signal.Signals) -> None:
        """The edge's only child is its engine."""
        (engine,) = Path(f"/proc/{self.victim.pid}/task/{self.victim.pid}/children").read_text().split()
        os.kill(int(engine), number)

    @contextlib.asynccontextmanager
    async def victims_status(self) -> AsyncIterator[StatusCall]:
        """A call that asks the victim for its status."""
        options = (("grpc.enable_http_proxy", 0),)
        async with grpc.aio.insecure_channel(self.victim.ready()["grpc"], options=options) as channel:
            edge = edge_pb2_grpc.EdgeServiceStub(channel)

            async def status() -> edge_pb2.EdgeServiceGetStatusResponse:
                return await edge.GetStatus(edge_pb2.EdgeServiceGetStatusRequest())

            yield status

    def status(self, gateway: Process) -> gateway_pb2.GetStatusResponse:
        options = (("grpc.enable_http_proxy", 0),)
        with grpc.insecure_channel(gateway.ready()["grpc"], options=options) as channel:
            status = gateway_pb2_grpc.GatewayServiceStub(channel).GetStatus(gateway_pb2.GetStatusRequest(), timeout=20)
        self.said.append(str(status))
        return status

    def policy(self, name: str, text: str) -> Path:
        path = self._directory / f"{name}.yaml"
        path.write_text(text)
        return path

    def gateway(
        self,
        edge: str,
        policy: Path | None = None,
        program: str | None = None,
        *,
        over_openai: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """A gateway between `edge` and the stub. `program` runs instead of the command."""
        stub = self.cloud.ready()
        cloud = ("--cloud-openai", f"http://{stub['http']}/v1") if over_openai else ("--cloud", stub["grpc"])
        options = () if policy is None else ("--policy", str(policy))
        launcher = None if program is None else [sys.executable, "-c", program]
        gateway = self._processes.gateway("--edge", edge, *cloud, *options, launcher=launcher, env=env)
        gateway.ready()
        return gateway

    def received(self, sent: Sequence[Sent]) -> list[dict[str, Any]]:
        """The record's entries of these requests."""
        lines = self.record.read_text().splitlines()
        return [json.loads(line) for line in lines if any(one.canary in line for one in sent)]

    def texts(self) -> dict[str, str]:
        """Everything that any process logged, printed, exported or explained, by where."""
        texts = {"said": "\n".join(self.said)}
        for process in self._processes.started:
            name = process.log.name
            texts[name] = process.stderr()
            texts[f"{name} stdout"] = "\n".join(process.lines)
            if process.is_running():
                ready = process.ready()
                texts[f"{name} metrics"] = get(f"http://{ready.get('metrics') or ready['http']}/metrics")
        return texts

    def leaks(self, sent: Sequence[Sent]) -> list[str]:
        """Each canary that is where it must not be: in the cloud if that is forbidden, in a process's texts always."""
        record = self.record.read_text() if self.record.exists() else ""
        found = [f"cloud: {one}" for one in sent if not one.probe.is_free and one.canary in record]
        texts = self.texts()
        found += [f"{where}: {one}" for one in sent for where, text in texts.items() if one.canary in text]
        return found

    def reached_the_cloud(self, sent: Sequence[Sent]) -> set[str]:
        """Names of the probes whose canary the cloud holds."""
        record = self.record.read_text()
        return {f"{one.probe.name} over {one.way}" for one in sent if one.canary in record}
