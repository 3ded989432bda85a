"""`flashgate-edge random`: a small Hugging Face checkpoint of random weights, to try the commands with."""

import argparse
from dataclasses import replace
from pathlib import Path


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "random",
        help="write a small random checkpoint to try things with",
        description="Write a small Hugging Face checkpoint (qwen3_5_moe_text) of random weights. Its text is noise.",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="directory to write; must not exist or be empty")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the same seed gives the same bytes (default: 0)"
    )
    parser.add_argument(
        "--mtp",
        action="store_true",
        help="with an MTP layer, which drafts tokens; at random, hardly one of them is right",
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Write the checkpoint."""
    from edge.checkpoint.random_model import SMALL, write_random_checkpoint

    write_random_checkpoint(args.out, replace(SMALL, num_mtp_layers=int(args.mtp)), args.seed)
    print(f"wrote {args.out}")
    return 0
