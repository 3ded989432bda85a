"""`flashgate-edge synth`: a pack of random weights of a real model's shape."""

import argparse
import sys
from pathlib import Path

from edge.checkpoint.geometries import GEOMETRIES
from edge.checkpoint.precision import BITS

EPILOG = """\
what a real model costs, without its weights:
  flashgate-edge synth /tmp/397b --geometry qwen3.5-397b-a17b --distinct-layers 4    60 layers on 20 GB of disk
  flashgate-edge synth /tmp/eighth --geometry qwen3.5-397b-a17b --layers 8           30 GB, all of it distinct
  flashgate-edge synth /tmp/hot --geometry qwen3.5-397b-a17b --layers 8 --experts 128 --routing skewed
  flashgate-edge synth /tmp/dense --geometry qwen3-8b          4.6 GB; with less --memory its layers stream
  flashgate-edge info /tmp/397b
  flashgate-edge bench /tmp/397b --memory 12GB

The text that such a model writes is noise, and it takes and gives token ids only. Speed, memory and disk traffic are
those of the real model: the same shapes, the same format, the same number of experts per token. How often an expert is
used again decides what a cache is worth: with uniform routing each is as likely as any other, the worst case; with
skewed routing the hottest experts of each layer are used as often as those of the real model (of 512: 16 cover 33% of
the uses, 32 49%, 64 67%, 128 85%; of other counts the same shares of the experts).
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "synth",
        help="make a packed model of random weights of a real model's shape",
        description="Make a packed model of random weights of a real model's shape, at about the speed of the disk.\n"
        "A run that was stopped goes on where it was; OUT appears when all of it is there.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="directory to make")
    parser.add_argument("--geometry", required=True, choices=GEOMETRIES, help="the model whose shape it has")
    parser.add_argument("--layers", type=int, metavar="N", help="instead of as many as the model has")
    parser.add_argument("--experts", type=int, metavar="N", help="per layer, instead of as many as the model has")
    parser.add_argument("--vocab", type=int, metavar="N", help="tokens, instead of as many as the model has")
    parser.add_argument(
        "--mtp",
        action="store_true",
        help="with the MTP layer of Qwen3.5, which drafts tokens; at random, hardly one of them is right",
    )
    parser.add_argument(
        "--bits", type=float, choices=BITS, default=4, metavar="BITS", help="as `convert` has them (default: 4)"
    )
    parser.add_argument(
        "--group",
        type=int,
        default=64,
        metavar="N",
        help="weights that share a scale, as `convert` has it (default: 64)",
    )
    parser.add_argument(
        "--distinct-layers",
        type=int,
        metavar="D",
        help="layers whose experts have files of their own; the other layers are hard links to these (default: all)",
    )
    parser.add_argument(
        "--routing",
        choices=("uniform", "skewed"),
        default="uniform",
        help="how often each expert is used, see below (default: uniform)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the same seed gives the same bytes (default: 0)"
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it is a packed model")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Make it with a progress bar in bytes written."""
    from edge.checkpoint.geometries import geometry
    from edge.checkpoint.synth import Synthesis, SynthOptions
    from edge.progress import byte_progress

    options = SynthOptions(
        name=f"{args.geometry}-synthetic",
        config=geometry(
            args.geometry,
            num_layers=args.layers,
            num_experts=args.experts,
            vocab_size=args.vocab,
            has_mtp=args.mtp,
        ),
        bits=args.bits,
        group=args.group,
        distinct_layers=args.distinct_layers,
        is_skewed=args.routing == "skewed",
        seed=args.seed,
    )
    with Synthesis(args.out, options, force=args.force) as synthesis:
        if synthesis.finished_bytes:
            print("note: going on where an earlier run was stopped", file=sys.stderr)
        with byte_progress("synth", synthesis.nbytes, synthesis.finished_bytes) as bar:
            synthesis.run(bar.update)
        print(f"wrote {args.out}: {synthesis.contents.nbytes} bytes of model, {synthesis.nbytes} on disk")
    return 0
