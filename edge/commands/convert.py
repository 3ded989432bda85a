"""`flashgate-edge convert`: pack a Hugging Face checkpoint."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.checkpoint.precision import BITS, CALIBRATION_TOKENS, SENSITIVE_BITS

EPILOG = """\
examples:
  flashgate-edge convert ~/models/Qwen3.5-35B-A3B ~/packs/qwen --bits 4
  flashgate-edge convert ~/models/Qwen3.5-35B-A3B ~/packs/qwen --bits 3.4 --force    replaces that pack
  flashgate-edge convert ~/models/Qwen3.5-35B-A3B ~/packs/qwen3 --bits 3 --calibration chats.jsonl --report errors.json
  flashgate-edge random ~/models/tiny && flashgate-edge convert ~/models/tiny ~/packs/tiny    without a download

Reads model_type qwen3_5_moe, qwen3_5, qwen3_next, qwen3_moe and qwen3, in bf16, fp16 or fp32. OUT takes about as many
bytes as SRC at 16 bits and 3.5 times fewer at 4; some 100 MB of memory do, whatever the model. A run that was stopped,
even by kill -9, goes on where it was; OUT appears when all of it is there. Then: flashgate-edge verify OUT

With --calibration the model reads the text layer by layer, and each weight is rounded so that what its layer yields
there changes least. FILE.jsonl has a chat {"messages": [{"role": ..., "content": ...}, ...]} on each line, answers
included; any other file is plain text. Best is text of the kind that the model will be used for, some ten thousand
tokens for a small model. It takes far longer than rounding to nearest: for the 397B some 65 hours on two cores, 3 GB of
memory and 1 GB more for each core, and 9 GB of disk beside OUT while it works.
"""
SHOWN_LINES = 8  # of the report


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
        "experts have fewer and all else has 4 or --sensitive-bits: 3.4 (gate and up 3, down 4), 3, 2 (default: 16)",
    )
    parser.add_argument(
        "--sensitive-bits",
        type=int,
        choices=tuple(SENSITIVE_BITS),
        default=8,
        metavar="BITS",
        help="with --bits below 8, bits of attention's projections, of what DeltaNet layers put out, and of an "
        "embedding that is the head too: 8 or 4 (default: 8)",
    )
    parser.add_argument(
        "--group",
        type=int,
        default=64,
        metavar="N",
        help="weights that share a scale, below 16 bits; a multiple of 64 (default: 64)",
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE", help="text to quantise for (default: none, round to nearest)"
    )
    parser.add_argument(
        "--calibration-tokens",
        type=int,
        default=CALIBRATION_TOKENS,
        metavar="N",
        help="use the first N tokens of the text (default: %(default)s)",
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE.json", help="with --calibration: write the error of every matrix"
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it is a packed model")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Convert with a progress bar in bytes of the checkpoint. Raises CheckpointError, CalibrationError."""
    from edge.checkpoint.convert import Conversion
    from edge.errors import CalibrationError
    from edge.progress import byte_progress

    if args.report:
        if not args.calibration:
            raise CalibrationError("--report needs --calibration FILE: errors are measured on that text")
        with args.report.open("a"):  # now, and not after hours, is the time to say that it cannot be written
            pass
    conversion = Conversion(
        args.source,
        args.out,
        bits=args.bits,
        group=args.group,
        sensitive_bits=args.sensitive_bits,
        calibration=args.calibration,
        calibration_tokens=args.calibration_tokens,
        force=args.force,
    )
    with conversion:
        for note in conversion.notes:
            print(f"note: {note}", file=sys.stderr)
        if conversion.finished_bytes:
            print("note: going on where an earlier run was stopped", file=sys.stderr)
        with byte_progress("convert", conversion.source_bytes, conversion.finished_bytes) as bar:
            conversion.run(bar.update)
        print(f"wrote {args.out}: {conversion.contents.nbytes} bytes at {args.bits:g} bits")
    if conversion.report:
        print("\n".join(report_table(conversion.report)))
    if args.report:
        _write_report(args.report, conversion.report)
    return 0


def report_table(lines: Sequence[dict[str, Any]]) -> list[str]:
    """The matrices whose output changed most, for people."""
    from edge.calibration.errors import worst_first

    rows = [
        f"{line['output_error']:8.2%} {line['weight_error']:8.2%}  {line['format']:4} {line['tensor']}"
        + (f", {line['worst_output_error']:.2%} in expert {line['worst_expert']}" if "experts" in line else "")
        for line in worst_first(lines)
    ]
    more = len(rows) - SHOWN_LINES
    tail = [f"and {more} more; --report writes all"] if more > 0 else []
    return [f"{'output':>8} {'weights':>8}  relative error on the calibration text", *rows[:SHOWN_LINES], *tail]


def _write_report(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    import json

    from edge.calibration.errors import worst_first

    path.write_text(json.dumps(worst_first(lines), indent=1) + "\n", encoding="utf-8")
