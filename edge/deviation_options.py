"""The options of several commands that change a model's answers for the sake of speed. Imports nothing heavy."""

import argparse


def add_deviation_options(parser: argparse.ArgumentParser) -> None:
    """`experts_per_token` and `substitute`, both None unless given; edge.deviation checks them."""
    group = parser.add_argument_group(
        "quality for speed",
        "Each changes what the model says, and how far is reported. Without them its own answer is computed.",
    )
    group.add_argument(
        "--experts-per-token",
        type=int,
        metavar="K",
        help="send each token to only the K likeliest experts, fewer than the model's makers chose",
    )
    group.add_argument(
        "--substitute",
        type=float,
        metavar="SHARE",
        help="while decoding, let the likeliest expert in RAM stand in for one that is not and would make up less than "
        "SHARE of what a token gets from its experts; above 0 to 1. The mean share is 1/K; the surest quarter is never "
        "replaced. The answer then depends on what is in RAM, and so on what was asked before",
    )
