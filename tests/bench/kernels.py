"""Speed of the native kernels against the machine's own limits, measured in the same run.

    python tests/bench/kernels.py [--threads N] [--rounds N]

Decode (one token) is bound by memory: GB/s of stored weights, beside the rate at which the same threads can read RAM.
Prefill is bound by arithmetic: GFLOP/s. Each figure is the median of the rounds, with the least and the greatest.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge import kernels
from edge.checkpoint.layout import ExpertLayout, Format, MatrixLayout
from edge.checkpoint.matrix import Matrix, aligned_zeros, biases, empty_matrix, scales

HIDDEN, EXPERT = 4096, 1024  # of Qwen3.5-397B-A17B
BYTES = 1 << 30  # of weights in one round of decode: far beyond any cache

Floats = NDArray[np.float32]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    kernels.set_num_threads(args.threads)
    print(f"machine: {cpu_name()}, {os.cpu_count()} CPUs, kernels {kernels.variant()}, {args.threads} threads")
    print(f"command: {' '.join([Path(sys.executable).name, *sys.argv])}")
    memory = np.ones(BYTES // 8, np.uint64)
    with ThreadPoolExecutor(args.threads) as pool:
        ram = measure(args.rounds, partial(read_ram, memory, pool, args.threads), BYTES / 1e9)
    del memory
    print(f"RAM read                 {show(ram, 'GB/s')}")
    for form in Format:
        decode_matmul(form, args.rounds, statistics.median(ram))
    for form in (Format.BF16, Format.Q4):
        decode_experts(form, args.rounds, statistics.median(ram))
    for form in Format:
        prefill_matmul(form, args.rounds)
    others(args.rounds)
    return 0


def read_ram(memory: NDArray[np.uint64], pool: ThreadPoolExecutor, threads: int) -> None:
    """Looks at every word once, by numpy."""
    for _ in pool.map(np.max, np.array_split(memory, threads * 4)):
        pass


def decode_matmul(form: Format, rounds: int, ram: float) -> None:
    """One token by [1024, 4096] matrices, each used once per round."""
    matrices = many(MatrixLayout(form, EXPERT, HIDDEN, 64 if form.is_quantized else 0))
    x = floats(1, HIDDEN)
    amount = sum(w.layout.nbytes for w in matrices) / 1e9

    def run() -> None:
        for w in matrices:
            kernels.matmul(x, w)

    rates = measure(rounds, run, amount)
    print(f"matmul 1 token   {form.name:5}   {show(rates, 'GB/s')}   {statistics.median(rates) / ram:.2f} of RAM")


def decode_experts(form: Format, rounds: int, ram: float) -> None:
    """One token by ten experts of [4096, 1024], as a decode step of one layer."""
    group = 64 if form.is_quantized else 0
    inner = MatrixLayout(form, EXPERT, HIDDEN, group)
    layout = ExpertLayout(inner, inner, MatrixLayout(form, HIDDEN, EXPERT, group))
    blocks = [aligned_zeros(layout.block_bytes, 4096) for _ in range(BYTES // layout.block_bytes // 10 * 10)]
    for block in blocks:
        block[::4096] = 1  # so that each page is memory of its own
    x = floats(1, HIDDEN)

    def run() -> None:
        for i in range(0, len(blocks), 10):
            kernels.expert_ffn_many(x, blocks[i : i + 10], layout)

    rates = measure(rounds, run, len(blocks) * layout.block_bytes / 1e9)
    print(f"10 experts       {form.name:5}   {show(rates, 'GB/s')}   {statistics.median(rates) / ram:.2f} of RAM")


def prefill_matmul(form: Format, rounds: int) -> None:
    """64 tokens by one [1024, 4096] matrix."""
    w = many(MatrixLayout(form, EXPERT, HIDDEN, 64 if form.is_quantized else 0), 1)[0]
    for tokens in (4, 16, 64, 512):
        x = floats(tokens, HIDDEN)
        repeats = max(1, 512 // tokens)

        def run(x: Floats = x, repeats: int = repeats) -> None:
            for _ in range(repeats):
                kernels.matmul(x, w)

        rates = measure(rounds, run, repeats * 2 * tokens * EXPERT * HIDDEN / 1e9)
        print(f"matmul {tokens:3} tokens {form.name:5}   {show(rates, 'GFLOP/s')}")


def others(rounds: int) -> None:
    """The layers' other kernels at the sizes of the 397B, in microseconds per call."""
    for tokens in (1, 64):
        v, g = floats(tokens, 64, 128), -np.abs(floats(tokens, 64))
        heads, cache = floats(tokens, 32, 256), floats(4096, 2, 256)
        q, state = floats(tokens, 16, 128), np.zeros((64, 128, 128), np.float32)
        x, weight, inputs = floats(tokens, 12288), floats(12288, 4), np.zeros((3, 12288), np.float32)
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


def many(layout: MatrixLayout, count: int | None = None) -> list[Matrix]:
    """Matrices of BYTES in all. What the weights are does not change the speed, as long as they are numbers."""
    matrices = [empty_matrix(layout) for _ in range(count or BYTES // layout.nbytes)]
    for matrix in matrices:
        matrix.data[: layout.scales_offset] = 0x11
        if layout.format.is_quantized:
            scales(matrix)[...] = 0.01
            biases(matrix)[...] = -0.1
    return matrices


def cpu_name() -> str:
    """The model name that Linux reports, or the architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} ({platform.machine()})"


if __name__ == "__main__":
    sys.exit(main())
