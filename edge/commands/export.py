"""`flashgate-edge export`: a packed model's weights as a Hugging Face checkpoint."""

import argparse
from pathlib import Path


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "export",
        help="write a packed model's weights as a Hugging Face checkpoint",
        description="Write a Hugging Face checkpoint (qwen3_5_moe_text) of exactly the weights that a packed model "
        "holds, to run or compare elsewhere.",
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="directory that `convert` wrote")
    parser.add_argument("out", metavar="OUT", type=Path, help="directory to write; must not exist or be empty")
    parser.add_argument(
        "--dtype",
        choices=("float32", "stored"),
        default="float32",
        help="float32 for all, or matrices of 16 bits as they are stored (default: float32)",
    )
    parser.add_argument(
        "--experts", choices=("fused", "single"), default="fused", help="a tensor per layer or per expert"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Export with a progress bar. Raises PackError, CheckpointError."""
    from tqdm import tqdm

    from edge.checkpoint.export import Export
    from edge.checkpoint.pack import Pack

    export = Export(Pack.open(args.model), stored=args.dtype == "stored", single=args.experts == "single")
    with tqdm(desc="export", total=export.nbytes, unit="B", unit_scale=True) as bar:
        export.write(args.out, bar.update)
    print(f"wrote {args.out}: {export.nbytes} bytes")
    return 0
