"""The whole edge server put together: its parts made, started, and taken down without dropping a request."""

import asyncio
import contextlib
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from edge import logs
from edge.budget import format_bytes
from edge.checkpoint.pack import Pack
from edge.deviation import Deviation
from edge.errors import BudgetError, EdgeError, UnavailableError
from edge.metrics import EdgeMetrics
from edge.prompt import PromptEncoder
from edge.server.admission import Admission
from edge.server.agreement import Agreement
from edge.server.exchange import ServedModel
from edge.server.limits import MAX_CALLS, max_request_bytes
from edge.server.metrics_http import MetricsServer
from edge.server.node_options import NodeOptions, engine_share
from edge.server.observed import EngineRestarted, EngineStepped, EngineWorked, Event
from edge.server.pace import Pace
from edge.server.priority import interrupt_nobody
from edge.server.rates import Rates
from edge.server.service import SERVICE, EdgeService, add_to_server
from edge.server.status import NodeState, StatusSource
from edge.server.supervisor import Supervisor
from edge.tokenizer import Tokenizer

# After the last answer was given, its last bytes may still be on their way.
GRACE_S = 1.0

log = structlog.get_logger()


class Node:
    """Made on the event loop that runs it.

    Raises: PackError if the model's files cannot be served; RequestError for options that the model forbids.
    """

    def __init__(self, options: NodeOptions) -> None:
        pack = Pack.open(options.model)
        tokenizer = None if pack.tokenizer_dir is None else Tokenizer.from_dir(pack.tokenizer_dir)
        encoder = PromptEncoder(tokenizer, pack.config.vocab_size, options.context_tokens)
        deviation = Deviation.asked(pack.config, options.experts_per_token, options.substitute)
        registry = CollectorRegistry()
        self._options = options
        self._agreement = Agreement(deviation)
        self._metrics = EdgeMetrics(registry, pack.name)
        self._registry = registry
        self._rates = Rates()
        self._pace = Pace(self._rates)
        self._load = engine_share(options)
        self._engine = Supervisor(
            self._load, self._observe, command=options.engine_command, silence_s=options.engine_silence_s
        )
        self._engine.on_state = self._follow_state
        self._admission = Admission(self._engine, self._rates, options.queue)
        self._status = StatusSource(
            self._engine,
            self._admission,
            self._rates,
            model=pack.name,
            weight_bits=pack.manifest.contents.bits,
            agreement=self._agreement,
            context_tokens=options.context_tokens,
            memory_budget_bytes=options.memory_bytes,
        )
        self._metrics.add_gauges(self._status)
        self._model = ServedModel(
            pack.name, options.context_tokens, encoder, tokenizer, pack.manifest.contents.bits, deviation
        )
        self._service = EdgeService(self._model, self._admission, self._rates, self._status, self._metrics.observe)
        self._health = health.aio.HealthServicer()
        self._background: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._is_broken = False

    async def run(self, announce: Callable[[str], None]) -> None:
        """Serve until a signal; `announce` gets the ready line. Raises: EdgeError if it cannot serve, or broke."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        async with contextlib.AsyncExitStack() as stack:
            metrics = await asyncio.to_thread(self._start_metrics)
            stack.push_async_callback(asyncio.to_thread, metrics.close)
            server, port = await self._start_grpc()
            await stack.enter_async_context(self._engine_running())
            stack.push_async_callback(server.stop, GRACE_S)
            self._listen_for_signals()
            if await self._is_ready():
                host, model = self._options.host, self._model.name
                announce(f"ready flashgate-edge grpc={host}:{port} metrics={host}:{metrics.port} model={model}")
                await self._stop.wait()
                await self._drain()
        if self._is_broken:
            raise EdgeError("the server ended itself: the log says where it broke")

    @contextlib.asynccontextmanager
    async def _engine_running(self) -> AsyncIterator[None]:
        """Keeps an engine until the end."""
        task = asyncio.create_task(self._guarded_engine())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _guarded_engine(self) -> None:
        """What breaks here must not leave requests waiting for ever: they end, and so does the server."""
        try:
            await self._engine.run()
        except Exception as error:
            log.error("server_broke", **logs.error_fields(error))  # noqa: TRY400 -- no text
            self._is_broken = True
            self._admission.fail_all(UnavailableError("the server broke", "SERVER_BROKE"))
            self._stop.set()

    async def _is_ready(self) -> bool:
        """Wait for the engine; False if the signal to stop came first. Raises: why it cannot be loaded."""
        ready, stop = asyncio.create_task(self._engine.wait_ready()), asyncio.create_task(self._stop.wait())
        await asyncio.wait((ready, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not ready.done():
            ready.cancel()
            return False
        try:
            ready.result()
        except BudgetError as error:
            stated = self._options.memory_bytes
            taken = format_bytes(stated - self._load.memory_bytes)
            raise BudgetError(f"{error} (that is {format_bytes(stated)} less {taken} for the server)") from error
        return True

    async def _drain(self) -> None:
        """Refuse new requests, let the accepted ones end, and after the time allowed end them ourselves."""
        log.info("drain_started", active=self._service.num_active, limit_s=self._options.drain_s)
        self._status.is_draining = True
        self._admission.drain()
        self._follow_state()
        self._stop.clear()
        try:
            async with asyncio.timeout(self._options.drain_s):
                await self._all_answered()
        except TimeoutError:
            self._admission.fail_all(UnavailableError("the server is shutting down", "DRAINING"))
        log.info("drain_ended", active=self._service.num_active)

    async def _all_answered(self) -> None:
        """Until no request is being answered, or a second signal says not to wait."""
        while self._service.num_active and not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 0.05)
        if self._service.num_active:
            raise TimeoutError

    async def _start_grpc(self) -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", max_request_bytes(self._options.context_tokens)),
                # A window that grows with the bandwidth would hold megabytes of what is to be refused.
                ("grpc.http2.bdp_probe", 0),
                # Two servers on one port would share its requests by chance.
                ("grpc.so_reuseport", 0),
            ),
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        add_to_server(self._service, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        address = f"{self._options.host}:{self._options.port}"
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as error:
            await server.stop(None)
            raise EdgeError(f"cannot listen for gRPC on {address}: is the port taken?") from error
        await server.start()
        return server, port

    def _start_metrics(self) -> MetricsServer:
        return MetricsServer(self._options.host, self._options.metrics_port, self._registry, self._can_serve)

    def _can_serve(self) -> bool:
        return self._status.state is NodeState.READY

    def _observe(self, event: Event) -> None:
        match event:
            case EngineWorked(added=added):
                self._rates.add_counters(added)
                self._agreement.add(added)
            case EngineStepped(step=step):
                self._pace.follow(step)
            case EngineRestarted():
                self._pace.forget()
        self._metrics.observe(event)

    def _follow_state(self) -> None:
        """Tell those who watch the health what the engine's state is now."""
        status = health_pb2.HealthCheckResponse
        health_now = status.SERVING if self._can_serve() else status.NOT_SERVING
        task = asyncio.create_task(self._set_health(health_now))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _set_health(self, status: int) -> None:
        for name in ("", SERVICE):
            await self._health.set(name, status)

    def _listen_for_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)


def serve(options: NodeOptions) -> None:
    """Run a node until it is told to stop. Raises: EdgeError if it cannot serve."""

    async def run() -> None:
        await Node(options).run(_announce)

    interrupt_nobody()
    # Of both processes: a core file would hold prompts.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asyncio.run(run())


def _announce(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
