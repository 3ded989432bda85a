"""`flashgate-edge cache-sim`: what other cache sizes and policies would have done with a recorded trace."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.experts.simulate import Outcome

EPILOG = """\
examples:
  flashgate-edge trace ~/packs/qwen --prompts prompts.jsonl --memory 3GB --out chat.trace
  flashgate-edge cache-sim chat.trace --slots 256,512,1024
  flashgate-edge cache-sim chat.trace --slots 512 --policies lfu,belady

Slots are experts that fit into RAM, all layers together. lru: the least recently used gives way; scan-lru: the same,
but a prompt passes through; lfu: the least often used, old uses fading (what the engine does); belady: the best that
any policy could do, with the future known; decode-belady: the best for decoding, whatever prompts then have to read.
"""
MOST_SLOTS = 1_000_000  # beyond any model's experts: the 397B has 30,720


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "cache-sim",
        help="compare cache sizes and policies on a recorded trace",
        description="Replay which experts a model asked for, and print the hit rates of cache policies as a table.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("trace", metavar="TRACE", type=Path, help="file written by `flashgate-edge trace`")
    parser.add_argument("--slots", metavar="N,N,…", type=counts, required=True, help="sizes of the cache in experts")
    parser.add_argument("--policies", metavar="NAME,…", help="default: all of these")
    parser.set_defaults(func=run)


def counts(text: str) -> list[int]:
    """ "256,512" to [256, 512]."""
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = [0]
    if not all(1 <= size <= MOST_SLOTS for size in sizes):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no list of sizes, 1 to {MOST_SLOTS}, like 256,512")
    return sizes


def run(args: argparse.Namespace) -> int:
    """Print the table. Raises TraceError, RequestError."""
    from edge.errors import RequestError
    from edge.experts.simulate import POLICIES, compare
    from edge.experts.trace import Trace

    names = args.policies.split(",") if args.policies else list(POLICIES)
    for name in names:
        if name not in POLICIES:
            raise RequestError(f"there is no policy {name!r}; there are {', '.join(POLICIES)}")
    print("\n".join(table(names, compare(Trace.read(args.trace), names, args.slots))))
    return 0


def table(names: list[str], rows: "dict[int, list[Outcome]]") -> list[str]:
    """Hit rates in percent: of decoding, and in brackets of the whole trace."""
    lines = [f"{'slots':>8}" + "".join(f"{name:>16}" for name in names)]
    for slots, outcomes in rows.items():
        cells = (f"{100 * outcome.decode_hit_rate:8.1f} ({100 * outcome.hit_rate:5.1f})" for outcome in outcomes)
        lines.append(f"{slots:>8}" + "".join(cells))
    return lines
