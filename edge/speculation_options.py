"""The options of several commands that say whether tokens are drafted. Imports nothing heavy."""

import argparse


def add_speculation_options(parser: argparse.ArgumentParser) -> None:
    """`speculate` and `draft_tokens`; edge.engine_options checks them."""
    group = parser.add_argument_group(
        "speculative decoding",
        "With the MTP layer of the model, if its pack has one. It changes no answer, greedy or sampled.",
    )
    group.add_argument(
        "--speculate",
        choices=("auto", "always", "off"),
        default="auto",
        help="guess tokens and check them together: while it is measured to pay, if at least half of the experts are "
        "in RAM, so that the layer's memory is not better spent on them; always; or never (default: auto)",
    )
    group.add_argument(
        "--draft-tokens", type=int, default=1, metavar="N", help="guessed at a time, each a worse guess (default: 1)"
    )
