"""`flashgate-edge cache-plot`: pictures of what a cache and a prefetch make of recorded routing."""

import argparse
from pathlib import Path

EPILOG = """\
examples:
  flashgate-edge trace ~/packs/demo --prompts ops/demo/questions.jsonl --limit 100 --out demo.trace
  flashgate-edge cache-plot demo.trace --out docs --title "demo model, 100 questions"

DIR/expert-cache-hit-rate.svg   how often an expert is found in RAM while decoding, by the number of experts that fit:
                                LRU, LFU with decay (the engine's), and the best that any policy could do
DIR/prefetch-recall.svg         how many of the experts that a layer needs are among those guessed a layer before, by
                                the number guessed: of all needed, and of those that caches of three sizes lack

The pictures follow the light or dark preference of whoever looks at them, and need no colours to be read.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "cache-plot",
        help="draw hit rates and prefetch recall of a recorded trace",
        description="Replay which experts a model asked for, and write two pictures as SVG files.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("trace", metavar="TRACE", type=Path, help="file written by `flashgate-edge trace`")
    parser.add_argument("--out", required=True, metavar="DIR", type=Path, help="where to write the pictures")
    parser.add_argument(
        "--title", metavar="TEXT", help="what was recorded, for the subtitle (default: the file's name)"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Write the pictures. Raises TraceError; OSError if they cannot be written."""
    from edge.bench.cache_pictures import CACHE_SIZES, hit_rates, prefetch_recall, summary
    from edge.experts.trace import Trace
    from edge.progress import count_progress

    trace = Trace.read(args.trace)
    subtitle = f"{args.title or args.trace.stem}: {summary(trace)}"
    recalls = prefetch_recall(trace, subtitle)  # first: it refuses a trace without guesses at once
    with count_progress("replaying", len(CACHE_SIZES), "sizes") as bar:
        hits = hit_rates(trace, subtitle, bar.update)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, chart in (("expert-cache-hit-rate.svg", hits), ("prefetch-recall.svg", recalls)):
        path = args.out / name
        path.write_text(chart.svg(), encoding="utf-8")
        print(f"wrote {path}")
    return 0
