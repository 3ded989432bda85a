"""Speed of the native kernels against the machine's own limits, measured in the same run.

    python tests/bench/kernels.py [--threads N] [--rounds N] [--formats Q4,Q3] [--tokens 1,8,512] [--others]

Few tokens are bound by memory: GB/s of stored weights, beside the rate at which the same threads read RAM and do
nothing else. Many are bound by arithmetic: GFLOP/s. Each figure is the median of the rounds (least to greatest).
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge import kernels
from edge.checkpoint.layout import ExpertLayout, Format, MatrixLayout
from edge.checkpoint.matrix import Matrix, aligned_zeros

HIDDEN, EXPERT = 4096, 1024  # of Qwen3.5-397B-A17B
GROUP = 64
BYTES = 1 << 30  # of weights in one round of decode: far beyond any cache

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--formats", type=formats, default=list(Format), help="names, comma-separated; default: all")
    parser.add_argument("--tokens", type=counts, default=[1, 2, 4, 8, 16, 64, 512], help="default: 1,2,4,8,16,64,512")
    parser.add_argument("--others", action="store_true", help="only the kernels that multiply with no weights")
    args = parser.parse_args(argv)
    kernels.set_num_threads(args.threads)
    print(f"machine: {cpu_name()}, {os.cpu_count()} CPUs, kernels {kernels.variant()}, {args.threads} threads")
    print(f"command: {' '.join([Path(sys.executable).name, *sys.argv])}")
    if args.others:
        others(args.rounds)
        return 0
    memory = aligned_zeros(BYTES, 4096)
    memory.view(np.float16)[...] = 0.01  # numbers as codes, scales, biases and floats of 16 bits alike
    ram = measure(args.rounds, partial(kernels.read_ram, memory), BYTES / 1e9)
    print(f"RAM read                  {show(ram, 'GB/s')}")
    for form in args.formats:
        for tokens in args.tokens:
            matmul(form, tokens, memory, args.rounds, statistics.median(ram))
        for tokens in args.tokens:
            experts(form, tokens, memory, args.rounds, statistics.median(ram))
    return 0


def formats(names: str) -> list[Format]:
    return [Format[name.upper()] for name in names.split(",")]


def counts(numbers: str) -> list[int]:
    return [int(number) for number in numbers.split(",")]


def matmul(form: Format, tokens: int, memory: Bytes, rounds: int, ram: float) -> None:
    """By [1024, 4096] matrices, each used once per round."""
    layout = MatrixLayout(form, EXPERT, HIDDEN, GROUP if form.is_quantized else 0)
    matrices = [Matrix(layout, part) for part in parts(memory, layout.nbytes, tokens)]
    x = floats(tokens, HIDDEN)

    def run() -> None:
        for w in matrices:
            kernels.matmul(x, w)

    amount = Amount(len(matrices) * layout.nbytes, 2 * len(matrices) * tokens * EXPERT * HIDDEN)
    print(f"matmul     {form.name:4} {tokens:3} tokens {amount.show(measure(rounds, run, 1), ram)}")


def experts(form: Format, tokens: int, memory: Bytes, rounds: int, ram: float) -> None:
    """Ten experts of [4096, 1024] at once, as one layer of a decode step, each for all tokens."""
    group = GROUP if form.is_quantized else 0
    inner = MatrixLayout(form, EXPERT, HIDDEN, group)
    layout = ExpertLayout(inner, inner, MatrixLayout(form, HIDDEN, EXPERT, group))
    blocks = list(parts(memory, layout.block_bytes, 3 * tokens))
    blocks = blocks[: max(len(blocks) // 10 * 10, 1)]
    x, out = floats(tokens, HIDDEN), np.zeros((tokens, HIDDEN), np.float32)

    def run() -> None:
        for i in range(0, len(blocks), 10):
            some = list(enumerate(blocks[i : i + 10]))
            rows = np.tile(np.arange(tokens, dtype=np.int32), len(some))
            ends = range(tokens, tokens * len(some) + 1, tokens)
            routing = kernels.Routing(list(range(len(some))), ends, rows, np.ones(len(rows), np.float32))
            kernels.ExpertSum(x, routing, layout, out).add(some)

    amount = Amount(len(blocks) * layout.block_bytes, 6 * len(blocks) * tokens * EXPERT * HIDDEN)
    print(
        f"{min(10, len(blocks)):2} experts {form.name:4} {tokens:3} tokens {amount.show(measure(rounds, run, 1), ram)}"
    )


def parts(memory: Bytes, nbytes: int, tokens: int) -> Iterator[Bytes]:
    """The memory in pieces of nbytes; of many tokens as few as take about as long."""
    count = len(memory) // nbytes
    for i in range(count if tokens <= 16 else max(1, min(count, 2048 // tokens))):
        yield memory[i * nbytes : (i + 1) * nbytes]


@dataclass(frozen=True, slots=True)
class Amount:
    """What one round reads and computes."""

    nbytes: int
    flops: int

    def show(self, rounds_per_second: Sequence[float], ram: float) -> str:
        """Both rates, and the share of the RAM's."""
        gigabytes = [rate * self.nbytes / 1e9 for rate in rounds_per_second]
        gigaflops = [rate * self.flops / 1e9 for rate in rounds_per_second]
        share = statistics.median(gigabytes) / ram
        return f"{show(gigabytes, 'GB/s')}  {share:.2f} of RAM  {show(gigaflops, 'GFLOP/s')}"


def others(rounds: int) -> None:
    """The layers' other kernels at the sizes of the 397B, in microseconds per call."""
    for tokens in (1, 64):
        v, g = floats(tokens, 64, 128), -np.abs(floats(tokens, 64))
        heads, cache = floats(tokens, 32, 256), floats(4096, 2, 256)
        q, state = floats(tokens, 16, 128), np.zeros((64, 128, 128), np.float32)
        x, weight, inputs = floats(tokens, 12288), floats(4, 12288), np.zeros((3, 12288), np.float32)
        logits = floats(tokens, 512)
        report("gated_delta", tokens, rounds, partial(kernels.gated_delta, q, q, v, g, np.exp(g), state))
        report("attention, 4096 keys", tokens, rounds, partial(kernels.attention, heads, cache, cache, 4096 - tokens))
        report("causal_conv", tokens, rounds, partial(kernels.causal_conv, x, weight, inputs))
        report("route, 10 of 512", tokens, rounds, partial(kernels.route, logits, 10))
    block = aligned_zeros(7_077_888)
    print(f"crc32c                   {show(measure(rounds, partial(kernels.crc32c, block), len(block) / 1e9), 'GB/s')}")


def report(name: str, tokens: int, rounds: int, run: Callable[[], object]) -> None:
    """Prints the time of one call."""
    times = [1e6 / rate for rate in measure(rounds, run, 1)]
    print(f"{name:20} {tokens:2} tokens  {show(times, 'us')}")


def measure(rounds: int, run: Callable[[], object], amount: float) -> list[float]:
    """`amount` per second, once per round, after one round that does not count."""
    run()
    rates = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        rates.append(amount / (time.perf_counter() - start))
    return rates


def show(rates: Sequence[float], unit: str) -> str:
    return f"{statistics.median(rates):8.2f} {unit} ({min(rates):.2f} to {max(rates):.2f})"


def floats(*shape: int) -> Floats:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def cpu_name() -> str:
    """The model name that Linux reports, or the architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} ({platform.machine()})"


if __name__ == "__main__":
    sys.exit(main())
