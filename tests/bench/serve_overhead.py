"""What serving costs the engine: decoding in the bare engine, in the server, and in the server while clients poll it.

    flashgate-edge synth /tmp/mid --geometry qwen3.5-35b-a3b --layers 8 --experts 128 --vocab 65536
    python tests/bench/serve_overhead.py /tmp/mid --memory 4GB

Rounds alternate between the three. A round is one request; its rate is that of the tokens after the first, by the
engine's or the server's own clock. The clients live in a process of their own, on a lower priority: in earnest they are
on other machines, and their own work must not be taken for the server's.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import grpc
from flashgate.v1 import common_pb2, edge_pb2, edge_pb2_grpc

PROMPT = [1, 2, 3, 4, 5, 6, 7, 8]
OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
CLIENT_NICE = 19


@dataclass
class Child:
    """This file or the server as a process, spoken to in lines."""

    process: "subprocess.Popen[str]"
    out: IO[str] = field(init=False)

    def __post_init__(self) -> None:
        assert self.process.stdout is not None
        self.out = self.process.stdout

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self, word: str) -> list[str]:
        """The words after `word` of the next line that begins with it."""
        line = next(line for line in self.out if line.startswith(word))
        return line.split()[1:]

    def cpu_seconds(self) -> float:
        """User and system time of the process, without its children."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def child(*argv: str) -> Iterator[Child]:
    """Runs it until the block ends."""
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield Child(process)
        finally:
            process.terminate()


def bare(pack: str, memory: str, threads: int, tokens: int) -> None:
    """For each line of stdin, one request to an engine in this process; tells its tokens per second."""
    from edge.budget import parse_bytes
    from edge.engine import Engine
    from edge.engine_options import EngineOptions
    from edge.sampler import SamplingParams

    engine = Engine.load(Path(pack), EngineOptions(memory_bytes=parse_bytes(memory), threads=threads))
    say("ready")
    for _ in sys.stdin:
        for _ in engine.generate(PROMPT, SamplingParams(max_tokens=tokens)):
            pass
        say(f"rate {(engine.last.completion_tokens - 1) / engine.last.decode_seconds}")


async def poll(address: str, clients: int, per_second: float) -> None:
    """Clients that ask for the status, each so often, until a line comes; tells how many did a second, and how fast."""
    os.nice(CLIENT_NICE)
    seconds: list[float] = []

    async def client(number: int) -> None:
        async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
            stub: edge_pb2_grpc.EdgeServiceAsyncStub = edge_pb2_grpc.EdgeServiceStub(channel)
            due = time.perf_counter() + number / clients / per_second
            while True:
                await asyncio.sleep(due - time.perf_counter())
                began = time.perf_counter()
                await stub.GetStatus(edge_pb2.EdgeServiceGetStatusRequest())
                seconds.append(time.perf_counter() - began)
                due = max(due + 1 / per_second, time.perf_counter())

    tasks = [asyncio.create_task(client(number)) for number in range(clients)]
    began = time.perf_counter()
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    took = time.perf_counter() - began
    say(f"polled {len(seconds) / took} {statistics.median(seconds)} {sorted(seconds)[int(len(seconds) * 0.99)]}")


def served_rate(stub: edge_pb2_grpc.EdgeServiceStub, tokens: int) -> float:
    """One request to the server; tokens per second between the first and the last."""
    sampling = common_pb2.Sampling(max_tokens=tokens, temperature=0)
    prompt = edge_pb2.TokenIds(ids=PROMPT)
    *_, last = stub.Generate(edge_pb2.EdgeServiceGenerateRequest(token_ids=prompt, sampling=sampling))
    timings = last.finished.timings
    seconds = (timings.total.ToNanoseconds() - timings.ttft.ToNanoseconds()) / 1e9
    return float((last.finished.usage.completion_tokens - 1) / seconds)


def measure(args: argparse.Namespace) -> None:
    here = (sys.executable, __file__)
    shared = ("--memory", args.memory, "--threads", str(args.threads))
    serve = (
        str(Path(sys.executable).parent / "flashgate-edge"),
        "serve",
        args.pack,
        "--port",
        "0",
        "--metrics-port",
        "0",
    )
    with (
        child(*here, args.pack, *shared, "--tokens", str(args.tokens), "--bare") as engine,
        child(*serve, *shared, "--prefix-memory", "0") as server,
    ):
        engine.hear("ready")
        address = server.hear("ready")[1].removeprefix("grpc=")
        with grpc.insecure_channel(address, options=OPTIONS) as channel:
            stub = edge_pb2_grpc.EdgeServiceStub(channel)
            served_rate(stub, args.tokens)  # fills the cache of experts
            engine.say("go")
            engine.hear("rate")
            say("round   engine   server   polled tok/s   polls/s  p50 ms  p99 ms   server CPU, quiet and polled")
            ratios = [one_round(args, number, engine, server, stub, address) for number in range(args.rounds)]
    for name, values in zip(("server / engine", "polled / server"), zip(*ratios, strict=True), strict=True):
        spread = f"{min(values):.3f} to {max(values):.3f}"
        say(f"{name}: median {statistics.median(values):.3f} ({spread}, {args.rounds} rounds)")


def one_round(
    args: argparse.Namespace,
    number: int,
    engine: Child,
    server: Child,
    stub: edge_pb2_grpc.EdgeServiceStub,
    address: str,
) -> tuple[float, float]:
    """Each of the three once; the two ratios."""
    engine.say("go")
    alone = float(engine.hear("rate")[0])
    quiet, quiet_cpu = with_cpu(server, stub, args.tokens)
    rate, count = str(args.polls_per_second), str(args.clients)
    with child(sys.executable, __file__, address, "--poll", "--clients", count, "--polls-per-second", rate) as clients:
        clients.hear("ready")
        polled, polled_cpu = with_cpu(server, stub, args.tokens)
        clients.say("stop")
        polls, p50, p99 = map(float, clients.hear("polled"))
    say(
        f"{number + 1:5} {alone:8.2f} {quiet:8.2f} {polled:8.2f} {polls:15.0f} {p50 * 1e3:7.2f} {p99 * 1e3:7.2f}"
        f" {quiet_cpu:10.1%} {polled_cpu:6.1%}"
    )
    return quiet / alone, polled / quiet


def with_cpu(server: Child, stub: edge_pb2_grpc.EdgeServiceStub, tokens: int) -> tuple[float, float]:
    """The rate of a request, and the share of one core that the server's own process took meanwhile."""
    cpu_s, began = server.cpu_seconds(), time.perf_counter()
    rate = served_rate(stub, tokens)
    return rate, (server.cpu_seconds() - cpu_s) / (time.perf_counter() - began)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", help="a packed model, such as one of `flashgate-edge synth`")
    parser.add_argument("--memory", default="4GB", help="of the engine and of the server (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each (default: all cores)")
    parser.add_argument("--tokens", type=int, default=100, help="of a round's request (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--clients", type=int, default=50, help="that poll the status (default: %(default)s)")
    parser.add_argument("--polls-per-second", type=float, default=2.0, help="of each client (default: %(default)s)")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--poll", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bare:
        bare(args.pack, args.memory, args.threads, args.tokens)
    elif args.poll:
        asyncio.run(poll(args.pack, args.clients, args.polls_per_second))
    else:
        measure(args)


if __name__ == "__main__":
    main()
