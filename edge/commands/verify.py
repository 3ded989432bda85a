"""`flashgate-edge verify`: re-read a packed model and check every checksum."""

import argparse
import sys
from pathlib import Path


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "verify",
        help="re-read a packed model and check every checksum",
        description="Re-read all of a packed model from disk. Says each bad tensor and expert; exit status 1 if any.",
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="directory that `convert` wrote")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Check with a progress bar. Raises PackError if the manifest cannot be trusted."""
    from tqdm import tqdm

    from edge.checkpoint.verify import Verification
    from edge.progress import byte_progress

    verification = Verification(args.model)
    num_bad = 0
    with byte_progress("verify", verification.nbytes) as bar:
        for problem in verification.run(bar.update):
            num_bad += 1
            tqdm.write(f"bad: {problem}", file=sys.stdout)
    if num_bad:
        print(f"{args.model}: {num_bad} problems: convert again")
        return 1
    print(f"{args.model}: all {verification.nbytes} bytes are as they were packed")
    return 0
