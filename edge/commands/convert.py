"""`flashgate-edge convert`: pack a Hugging Face checkpoint."""

import argparse
import sys
from pathlib import Path

from edge.checkpoint.precision import BITS


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "convert",
        help="pack a Hugging Face checkpoint",
        description="Pack a Qwen3 or Qwen3.5 checkpoint so that it can stream from disk. A run that was stopped "
        "goes on where it was; OUT appears when all of it is there.",
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="directory with config.json and *.safetensors")
    parser.add_argument("out", metavar="OUT", type=Path, help="directory to make")
    parser.add_argument(
        "--bits",
        type=float,
        choices=BITS,
        default=16,
        metavar="BITS",
        help="bits per weight: 16, the checkpoint's own precision, without loss; 8; 4; below that only the routed "
        "experts have fewer and all else has 4: 3.4 (gate and up 3, down 4), 3, 2 (default: 16)",
    )
    parser.add_argument(
        "--group",
        type=int,
        default=64,
        metavar="N",
        help="weights that share a scale, below 16 bits; a multiple of 64 (default: 64)",
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it is a packed model")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Convert with a progress bar in bytes of the checkpoint."""
    from tqdm import tqdm

    from edge.checkpoint.convert import Conversion

    with Conversion(args.source, args.out, bits=args.bits, group=args.group, force=args.force) as conversion:
        for note in conversion.notes:
            print(f"note: {note}", file=sys.stderr)
        if conversion.finished_bytes:
            print("note: going on where an earlier run was stopped", file=sys.stderr)
        bar = tqdm(
            desc="convert",
            total=conversion.source_bytes,
            initial=conversion.finished_bytes,
            unit="B",
            unit_scale=True,
        )
        with bar:
            conversion.run(bar.update)
        print(f"wrote {args.out}: {conversion.contents.nbytes} bytes at {args.bits:g} bits")
    return 0
