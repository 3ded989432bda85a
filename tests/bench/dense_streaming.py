"""A dense model that does not fit its budget: tokens per second beside the disk's own rate, measured in the same run.

    python tests/bench/dense_streaming.py WORK [--layers N] [--share S] [--tokens N] [--rounds N] [--threads N]

Makes a random 4-bit pack of Qwen3-8B's layers and vocabulary in WORK, gives the engine `share` of its
size and takes turns: the disk alone, reading the same layers into as much memory with nothing to compute, and decoding.
Each round gives the rate of both; what is reported is the ratio, its median and its spread.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge.budget import format_bytes, resident_bytes
from edge.checkpoint.contents import MANIFEST_FILE
from edge.checkpoint.geometries import geometry
from edge.checkpoint.pack import Pack
from edge.checkpoint.synth import Synthesis, SynthOptions
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.kernels import ExpertReader
from edge.sampler import SamplingParams

CONTEXT_TOKENS = 512
PROMPT_TOKENS = 16
WARMUP_TOKENS = 2
ROOF_SECONDS = 3.0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", metavar="WORK", type=Path)
    parser.add_argument("--layers", type=int, default=24, help="default: 24, 3.4 GB with the embedding and the head")
    parser.add_argument("--share", type=float, default=1 / 3, help="of the pack's size, beside the process itself")
    parser.add_argument("--tokens", type=int, default=8, help="decoded in each round (default: 8)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args(argv)
    size = make_pack(args.work, args.layers)
    options = EngineOptions(
        memory_bytes=resident_bytes() + int(size * args.share),
        context_tokens=CONTEXT_TOKENS,
        threads=args.threads,
        max_sequences=1,
    )
    engine = Engine.load(args.work, options)
    plan = engine.plan
    print(
        f"pack {format_bytes(size)}, budget {format_bytes(options.memory_bytes)}, threads {args.threads}; "
        f"{len(plan.streamed_layers)} of {args.layers} layers stream{' and the head' if plan.head_streams else ''}, "
        f"{format_bytes(plan.dense_streamed_bytes)} a pass"
    )
    decode(engine, 1)
    peak = engine.stats().peak_memory_bytes  # before this program's own buffers
    print(f"peak {format_bytes(peak)} of {format_bytes(options.memory_bytes)}")
    shares = []
    for number in range(args.rounds):
        disk = disk_rate(engine)
        tokens, read = decode(engine, args.tokens)
        disk = (disk + disk_rate(engine)) / 2  # before and after: the disk's rate wanders
        shares.append(read / disk)
        print(
            f"round {number + 1}: {tokens:.3f} tokens/s, reads {read / 1e9:.2f} GB/s, "
            f"disk alone {disk / 1e9:.2f} GB/s, share {read / disk:.3f}"
        )
    print(f"share of the disk's roof: {statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})")
    engine.close()
    return 0


def make_pack(path: Path, num_layers: int) -> int:
    """A pack of random weights, unless one is there; its size."""
    options = SynthOptions("qwen3-8b-synthetic", geometry("qwen3-8b", num_layers=num_layers))
    if not (path / MANIFEST_FILE).exists():
        with Synthesis(path, options) as synthesis:
            synthesis.run(lambda _: None)
    return Pack.open(path).dense_nbytes


def decode(engine: Engine, num_tokens: int) -> tuple[float, float]:
    """Tokens per second, and bytes of layers per second that they take."""
    prompt = np.random.default_rng(1).integers(0, engine.config.vocab_size, PROMPT_TOKENS).tolist()
    tokens = engine.generate(prompt, SamplingParams(max_tokens=WARMUP_TOKENS + num_tokens))
    for _ in range(WARMUP_TOKENS):
        next(tokens)
    began = time.perf_counter()
    count = sum(1 for _ in tokens)
    rate = count / (time.perf_counter() - began)
    return rate, rate * engine.plan.dense_streamed_bytes


def disk_rate(engine: Engine) -> float:
    """Bytes per second of the same layers, read into as many slots with nothing to compute."""
    sections = engine.pack.manifest.contents.sections
    places = [sections[f"layers.{layer}"] for layer in engine.plan.streamed_layers]
    slots = np.empty((engine.plan.ring_slots, max(place.nbytes for place in places) + 4096), np.uint8)
    aligned = [slot[-slot.ctypes.data % 4096 :] for slot in slots]
    done, turn = 0, 0
    with ExpertReader([engine.pack.dense_path]) as reader:
        tickets: dict[int, int] = {}
        began = time.perf_counter()
        while time.perf_counter() - began < ROOF_SECONDS:
            slot, place = turn % len(aligned), places[turn % len(places)]
            if slot in tickets:
                reader.wait(tickets[slot])
                done += places[(turn - len(aligned)) % len(places)].nbytes
            tickets[slot] = reader.read(0, place.offset, aligned[slot][: place.nbytes], None)
            turn += 1
        spent = time.perf_counter() - began
        for ticket in tickets.values():
            reader.wait(ticket)
    return done / spent


if __name__ == "__main__":
    sys.exit(main())
