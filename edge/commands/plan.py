"""`flashgate-edge plan`: what a packed model would do here under a budget, before anything runs."""

import argparse
import json
import os
from pathlib import Path

EPILOG = """\
examples:
  flashgate-edge plan ~/packs/qwen --memory 3GB
  flashgate-edge plan ~/packs/qwen --memory 12GB --disk-rate 7GB/s         as if the disk were that fast
  flashgate-edge plan ~/packs/qwen --memory 12GB --routing skewed --sequences 4

The prediction: in each layer the router names the experts; those that are not in RAM are asked of the disk at once, and
while they come one after another the shared expert and the experts that are there are computed. A pass, which gives
each sequence a token, takes its computation plus the time in which a layer has nothing to compute. Measured in about
three seconds: what computing takes, by running a few of the model's layers with all experts in RAM, and the disk's rate
for as many experts at once as a layer is short of.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "plan",
        help="predict memory use and speed under a budget",
        description="Say what of a packed model would be in RAM under a budget, and how fast it would be on this disk.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="directory made by `flashgate-edge convert`")
    parser.add_argument("--memory", default="2GB", metavar="SIZE", help="what the process may hold (default: 2GB)")
    parser.add_argument(
        "--context", type=int, default=4096, metavar="TOKENS", help="prompt and answer together (default: 4096)"
    )
    parser.add_argument("--sequences", type=int, default=1, metavar="S", help="decoded side by side (default: 1)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="T", help="cores (default: all)")
    parser.add_argument("--disk-rate", metavar="SIZE/s", help="of the disk, like 7GB/s (default: measured)")
    parser.add_argument(
        "--compute-rate", metavar="SIZE/s", help="at which weights are gone through, like 30GB/s (default: measured)"
    )
    routing = parser.add_mutually_exclusive_group()
    routing.add_argument(
        "--routing",
        choices=("uniform", "skewed"),
        default="uniform",
        help="all experts alike, the worst case, or as the 397B's text has it (default: uniform)",
    )
    routing.add_argument("--trace", type=Path, metavar="FILE", help="routing as `bench --trace FILE` recorded it")
    parser.add_argument(
        "--recall",
        type=float,
        default=0.75,
        metavar="R",
        help="share of experts guessed a layer ahead, as `bench` reports it; 0: nothing is read ahead (default: 0.75)",
    )
    parser.add_argument("--prompt-tokens", type=int, default=512, metavar="P", help="of a prompt (default: 512)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Predict. Raises RequestError, PackError, BudgetError, TraceError, StorageError."""
    from edge import logs
    from edge.bench.forecast import Assumptions, forecast
    from edge.bench.forecast_table import forecast_table
    from edge.budget import parse_bytes
    from edge.engine_options import EngineOptions
    from edge.errors import RequestError

    logs.configure()
    if args.prompt_tokens < 1:
        raise RequestError(f"prompt_tokens is {args.prompt_tokens}: it must be at least 1")
    if not 0 <= args.recall <= 1:
        raise RequestError(f"recall is {args.recall}: it must be 0 to 1")
    options = EngineOptions(
        memory_bytes=parse_bytes(args.memory),
        context_tokens=args.context,
        threads=args.threads,
        max_sequences=args.sequences,
    )
    assumptions = Assumptions(
        disk_rate=args.disk_rate and parse_rate(args.disk_rate),
        compute_rate=args.compute_rate and parse_rate(args.compute_rate),
        routing=args.routing,
        trace=args.trace,
        recall=args.recall,
        prompt_tokens=args.prompt_tokens,
    )
    figures = forecast(args.model, options, assumptions)
    print(json.dumps(figures, indent=2) if args.json else forecast_table(figures))
    return 0


def parse_rate(text: str) -> float:
    """ "7GB/s", or "7GB", to bytes per second. Raises BudgetError, or RequestError for none at all."""
    from edge.budget import parse_bytes
    from edge.errors import RequestError

    rate = parse_bytes(text.strip().removesuffix("/s"))
    if not rate:
        raise RequestError(f"{text!r} is no rate: it must be above 0")
    return rate
