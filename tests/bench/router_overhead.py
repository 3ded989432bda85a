"""What the gateway adds to a request: the same fake edge asked directly and through `flashgate serve`.

    python tests/bench/router_overhead.py

Three processes over loopback: a fake edge that answers at once with one text, the gateway, this client.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import grpc
import httpx2
from flashgate.v1 import common_pb2, edge_pb2, edge_pb2_grpc, gateway_pb2, gateway_pb2_grpc

PROMPT = "The quick brown fox jumps over the lazy dog. " * 45
OPTIONS = (("grpc.enable_http_proxy", 0),)
Ask = Callable[[], Awaitable[None]]


class Edge(edge_pb2_grpc.EdgeServiceServicer):
    """Answers at once."""

    async def Generate(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802 - gRPC's
        yield edge_pb2.EdgeServiceGenerateResponse(tokens=edge_pb2.EdgeTokens(ids=[1], text="Hello"))
        usage = common_pb2.Usage(prompt_tokens=450, completion_tokens=1)
        end = edge_pb2.EdgeFinished(finish_reason=common_pb2.FINISH_REASON_STOP, usage=usage)
        yield edge_pb2.EdgeServiceGenerateResponse(finished=end)

    async def GetStatus(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802 - gRPC's
        return edge_pb2.EdgeServiceGetStatusResponse(
            model="fake",
            engine_state=edge_pb2.ENGINE_STATE_READY,
            prefill_tokens_per_second=1e6,
            decode_tokens_per_second=1e6,
        )


async def serve_edge() -> None:
    server = grpc.aio.server()
    edge_pb2_grpc.add_EdgeServiceServicer_to_server(Edge(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"ready fake-edge grpc=127.0.0.1:{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


@contextlib.contextmanager
def process(*argv: str) -> Iterator[dict[str, str]]:
    """Runs it; gives the addresses of its ready line, and its `pid`."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        try:
            assert child.stdout is not None
            line = next(line for line in child.stdout if line.startswith("ready "))
            yield {**dict(word.split("=", 1) for word in line.split()[2:]), "pid": str(child.pid)}
        finally:
            child.terminate()


async def latencies(ask: Ask, number: int) -> list[float]:
    """Seconds of each request, one after another."""
    seconds = []
    for _ in range(number):
        began = time.perf_counter()
        await ask()
        seconds.append(time.perf_counter() - began)
    return seconds


async def throughput(ask: Ask, clients: int, number: int) -> float:
    """Requests per second."""
    left = iter(range(number))

    async def client() -> None:
        for _ in left:
            await ask()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return number / (time.perf_counter() - began)


def cpu_seconds(pid: str) -> float:
    """User and system time of a process so far: unlike wall time it hardly depends on what else runs."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(edge: str, gateway: dict[str, str], number: int, clients: int) -> None:
    message = common_pb2.ChatMessage(role="user", content=PROMPT)
    to_edge = edge_pb2.EdgeServiceGenerateRequest(chat=edge_pb2.ChatPrompt(messages=[message]))
    to_gateway = gateway_pb2.GenerateRequest(messages=[message])
    body = {"model": "m", "messages": [{"role": "user", "content": PROMPT}]}
    async with (
        grpc.aio.insecure_channel(edge, options=OPTIONS) as edge_channel,
        grpc.aio.insecure_channel(gateway["grpc"], options=OPTIONS) as gateway_channel,
        httpx2.AsyncClient(trust_env=False, timeout=30, limits=httpx2.Limits(max_connections=clients)) as client,
    ):
        edge_stub = edge_pb2_grpc.EdgeServiceStub(edge_channel)
        gateway_stub = gateway_pb2_grpc.GatewayServiceStub(gateway_channel)

        async def direct() -> None:
            async for _ in edge_stub.Generate(to_edge):
                pass

        async def over_grpc() -> None:
            async for _ in gateway_stub.Generate(to_gateway):
                pass

        async def over_http() -> None:
            (await client.post(f"http://{gateway['http']}/v1/chat/completions", json=body)).raise_for_status()

        for name, ask in (("direct", direct), ("gateway, gRPC", over_grpc), ("gateway, HTTP", over_http)):
            await latencies(ask, 50)
            cpu_s = cpu_seconds(gateway["pid"])
            seconds = sorted(await latencies(ask, number))
            rate = await throughput(ask, clients, number * 2)
            cpu_ms = (cpu_seconds(gateway["pid"]) - cpu_s) / (3 * number) * 1000
            p50, p99 = statistics.median(seconds) * 1000, seconds[int(number * 0.99)] * 1000
            sys.stdout.write(
                f"{name:14}  p50 {p50:6.2f} ms  p99 {p99:6.2f} ms   {rate:6.0f} req/s at {clients} clients   "
                f"gateway CPU {cpu_ms:5.2f} ms per request\n"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000, help="per measurement (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=16, help="for the throughput (default: %(default)s)")
    parser.add_argument("--fake-edge", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fake_edge:
        asyncio.run(serve_edge())
        return
    flashgate = str(Path(sys.executable).with_name("flashgate"))
    sys.stdout.write(f"{os.cpu_count()} CPUs, {args.requests} requests, prompt of {len(PROMPT)} bytes\n")
    with (
        process(sys.executable, __file__, "--fake-edge") as edge,
        process(flashgate, "serve", "--grpc-port", "0", "--http-port", "0", "--edge", edge["grpc"]) as gateway,
    ):
        asyncio.run(measure(edge["grpc"], gateway, args.requests, args.clients))


if __name__ == "__main__":
    main()
