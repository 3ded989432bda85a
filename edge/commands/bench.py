"""`flashgate-edge bench`: how fast a packed model runs here, and how much faster this machine would allow."""

import argparse
import json
import os
from pathlib import Path

from edge.deviation_options import add_deviation_options

EPILOG = """\
examples:
  flashgate-edge bench ~/packs/qwen --memory 3GB
  flashgate-edge bench ~/packs/qwen --memory 12GB --prompt-tokens 512 --tokens 64 --sequences 4
  flashgate-edge bench ~/packs/qwen --memory 3GB --json > before.json

The roof is the least time in which this machine's disk and memory can deliver what was read: the greater of disk bytes
by disk rate and RAM bytes by RAM rate, both rates measured in this run, before and after. RAM bytes are the weights
that the computation goes through; arithmetic is not part of the roof, so that a long prompt in RAM stays far below it.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "bench",
        help="measure speed, and the share of what disk and memory allow",
        description="Run random prompts through a packed model; report tokens/s, where the time goes, and the roofs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="directory made by `flashgate-edge convert`")
    parser.add_argument("--memory", default="2GB", metavar="SIZE", help="what the process may hold (default: 2GB)")
    parser.add_argument(
        "--prompt-tokens", type=int, default=64, metavar="P", help="random ids in each prompt (default: 64)"
    )
    parser.add_argument("--tokens", type=int, default=32, metavar="N", help="decoded and measured (default: 32)")
    parser.add_argument(
        "--warmup",
        type=int,
        default=8,
        metavar="W",
        help="first run another prompt and W tokens that do not count; 0: begin with an empty cache (default: 8)",
    )
    parser.add_argument("--sequences", type=int, default=1, metavar="S", help="decoded side by side (default: 1)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="T", help="cores (default: all)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same prompts")
    parser.add_argument(
        "--no-prefetch", dest="prefetch", action="store_false", help="read no expert before a layer asks for it"
    )
    parser.add_argument(
        "--trace", type=Path, metavar="FILE", help="record which experts were asked for: for `plan --trace`"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_deviation_options(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Measure. Raises RequestError, PackError, BudgetError, StorageError."""
    from edge import logs
    from edge.bench.run import bench
    from edge.bench.table import table
    from edge.bench.workload import Workload
    from edge.budget import parse_bytes
    from edge.engine_options import EngineOptions

    logs.configure()
    workload = Workload(args.prompt_tokens, args.tokens, args.warmup, args.sequences, args.seed)
    options = EngineOptions(
        memory_bytes=parse_bytes(args.memory),
        threads=args.threads,
        prefetch=args.prefetch,
        experts_per_token=args.experts_per_token,
        substitute=args.substitute,
    )
    figures = bench(args.model, workload, options, args.trace)
    print(json.dumps(figures, indent=2) if args.json else table(figures))
    return 0
