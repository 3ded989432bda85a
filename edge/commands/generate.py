"""`flashgate-edge generate`: one answer, streamed to the terminal, without a server."""

import argparse
import os
from pathlib import Path

from edge.deviation_options import add_deviation_options
from edge.speculation_options import add_speculation_options

EPILOG = """\
examples:
  flashgate-edge generate ~/packs/qwen --prompt "The capital of France is" --max-tokens 16
  flashgate-edge generate ~/packs/qwen --prompt "Write a haiku about disks" --chat --temperature 0.7 --seed 1
  flashgate-edge generate ~/packs/qwen --prompt "Count to ten." --chat --speculate always    how many guesses are right
  flashgate-edge generate ~/packs/qwen --ids 151644,872,198 --max-tokens 8 --memory 6GB
  flashgate-edge generate ~/packs/qwen --prompt "Once upon a time" --memory 3GB --substitute 0.08

The answer goes to stdout, as text, or as token ids if the model has no tokenizer. What it took comes last, on stderr.
What is not stated (--temperature …) is as the model's own generation_config.json says; greedy if it says nothing.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "generate",
        help="one answer, streamed to the terminal",
        description="Load a packed model, answer one prompt, and say how fast it went.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="directory made by `flashgate-edge convert`")
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", metavar="TEXT", help="the prompt")
    prompt.add_argument("--ids", metavar="1,2,3", type=token_ids, help="the prompt as token ids")
    parser.add_argument("--chat", action="store_true", help="apply the chat template: --prompt is the user's message")
    parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="most tokens (default: 256)")
    parser.add_argument("--temperature", type=float, metavar="T", help="0 is greedy; 0 to 2")
    parser.add_argument("--top-p", type=float, metavar="P", help="smallest set of tokens that reaches P; above 0, to 1")
    parser.add_argument("--top-k", type=int, metavar="K", help="only the K likeliest tokens; 0: all")
    parser.add_argument(
        "--min-p", type=float, metavar="P", help="only tokens P times as likely as the likeliest; 0 to 1"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same answer")
    parser.add_argument("--stop", nargs="+", action="extend", default=[], metavar="TEXT", help="end before this text")
    parser.add_argument("--memory", default="2GB", metavar="SIZE", help="what the process may hold (default: 2GB)")
    parser.add_argument(
        "--context", type=int, default=4096, metavar="TOKENS", help="prompt and answer together (default: 4096)"
    )
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="cores to use (default: all)"
    )
    parser.add_argument(
        "--verify",
        choices=("first", "always", "off"),
        default="always",
        help="which reads of an expert are checked against its checksum (default: always)",
    )
    add_speculation_options(parser)
    add_deviation_options(parser)
    parser.set_defaults(func=run)


def token_ids(text: str) -> list[int]:
    """ "1,2,3" to [1, 2, 3]."""
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of token ids like 1,2,3") from None


def run(args: argparse.Namespace) -> int:
    """Answer one prompt."""
    from edge import logs
    from edge.terminal import generate

    logs.configure()
    return generate(args)
