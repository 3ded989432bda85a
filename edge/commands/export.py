"""`flashgate-edge export`: a packed model's weights as a Hugging Face checkpoint."""

import argparse
from pathlib import Path

EPILOG = """\
examples:
  flashgate-edge export ~/packs/qwen ~/models/qwen-4bit
  flashgate-edge export ~/packs/qwen ~/models/qwen-bf16 --dtype stored --experts single

float32 holds every stored number exactly and takes 4 bytes for each weight: at 4 bits 7 times the pack.
transformers reads the result with AutoModelForCausalLM.from_pretrained(OUT, dtype="float32").
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "export",
        help="write a packed model's weights as a Hugging Face checkpoint",
        description="Write a Hugging Face checkpoint, of the text model's own family, of exactly the weights that a "
        "packed model holds, to run or compare elsewhere.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
        "--experts",
        choices=("fused", "single"),
        default="fused",
        help="a tensor per layer or per expert (default: fused)",
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Export with a progress bar. Raises PackError, CheckpointError."""
    from edge.checkpoint.export import Export
    from edge.checkpoint.pack import Pack
    from edge.progress import byte_progress

    export = Export(Pack.open(args.model), stored=args.dtype == "stored", single=args.experts == "single")
    with byte_progress("export", export.nbytes) as bar:
        export.write(args.out, bar.update)
    print(f"wrote {args.out}: {export.nbytes} bytes")
    return 0
