"""`flashgate-edge convert`: pack a Hugging Face checkpoint."""

import argparse
import sys
from pathlib import Path

from edge.checkpoint.precision import BITS

EPILOG = """\
examples:
  flashgate-edge convert ~/models/Qwen3.5-35B-A3B ~/packs/qwen --bits 4
  flashgate-edge convert ~/models/Qwen3.5-35B-A3B ~/packs/qwen --bits 3.4 --force    replaces that pack
  flashgate-edge random ~/models/tiny && flashgate-edge convert ~/models/tiny ~/packs/tiny    without a download

Reads model_type qwen3_5_moe, qwen3_5, qwen3_next, qwen3_moe and qwen3, in bf16, fp16 or fp32. OUT takes about as many
bytes as SRC at 16 bits and 3.5 times fewer at 4; some 100 MB of memory do, whatever the model. A run that was stopped,
even by kill -9, goes on where it was; OUT appears when all of it is there. Then: flashgate-edge verify OUT
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "convert",
        help="pack a Hugging Face checkpoint",
        description="Pack a Qwen3 or Qwen3.5 checkpoint so that it can stream from disk.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    from edge.checkpoint.convert import Conversion
    from edge.progress import byte_progress

    with Conversion(args.source, args.out, bits=args.bits, group=args.group, force=args.force) as conversion:
        for note in conversion.notes:
            print(f"note: {note}", file=sys.stderr)
        if conversion.finished_bytes:
            print("note: going on where an earlier run was stopped", file=sys.stderr)
        with byte_progress("convert", conversion.source_bytes, conversion.finished_bytes) as bar:
            conversion.run(bar.update)
        print(f"wrote {args.out}: {conversion.contents.nbytes} bytes at {args.bits:g} bits")
    return 0
