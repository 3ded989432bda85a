"""`flashgate ask`: send one request to a running gateway, print the answer and why it came from there."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from router.errors import RequestError

if TYPE_CHECKING:
    from flashgate.v1 import gateway_pb2

KEY_VARIABLE = "FLASHGATE_API_KEY"
EXPLANATION = """\
The answer streams to stdout; one line about the route follows on stderr. With --explain nothing is sent to any model:
the gateway says what it would do and why.

examples:
  flashgate ask "Why is the sky blue?"
  flashgate ask "The patient's results: ..." --tags phi --ttft-ms 500
  cat letter.txt | flashgate ask - --tags internal --explain
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "ask",
        help="send one request and print the answer and its route",
        description="Send one request to a running gateway.",
        epilog=EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("prompt", help="what to ask; - reads it from stdin")
    parser.add_argument("--system", metavar="TEXT", help="a system message before the prompt")
    parser.add_argument("--tags", metavar="A,B", help="privacy tags, such as phi,internal")
    parser.add_argument("--max-reach", choices=["device", "fleet", "cloud_masked", "cloud"], help="go no further")
    parser.add_argument("--min-capability", metavar="NAME", default="", help="least capability class")
    parser.add_argument("--ttft-ms", type=_positive, metavar="N", help="bound for the first token, milliseconds")
    parser.add_argument("--total-ms", type=_positive, metavar="N", help="bound for the whole answer, milliseconds")
    parser.add_argument("--latency-class", choices=["interactive", "batch", "background"], help="bounds by name")
    parser.add_argument("--strict", action="store_true", help="refuse rather than answer later than the bounds")
    parser.add_argument("--max-tokens", type=_positive, metavar="N", help="most tokens to generate")
    parser.add_argument("--temperature", type=float, metavar="X", help="0 is greedy; 0 to 2")
    parser.add_argument("--seed", type=_natural, metavar="N", help="the same seed gives the same tokens")
    parser.add_argument("--explain", action="store_true", help="say what would happen; send nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("--address", default="127.0.0.1:50050", metavar="HOST:PORT", help="default %(default)s")
    parser.add_argument("--timeout", type=_positive, metavar="S", help="give up after so many seconds")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Raises RouterError with one line that says what to do."""
    from router.gateway import ask_client, ask_report

    request = _request(args)
    key = os.environ.get(KEY_VARIABLE, "")
    with ask_client.AskClient(args.address, key, args.timeout) as client:
        if args.explain:
            ask_report.write_explanation(client.explain(request), sys.stdout, as_json=args.json)
        elif args.json:
            ask_report.write_answer_json(client.generate(request), sys.stdout)
        else:
            ask_report.write_answer(client.generate(request), sys.stdout, sys.stderr)
    return 0


def _request(args: argparse.Namespace) -> "gateway_pb2.GenerateRequest":
    from flashgate.v1 import common_pb2, gateway_pb2

    for name, text in (("the prompt", args.prompt), ("--system", args.system or ""), ("--tags", args.tags or "")):
        _check_utf8(name, text)
    messages = [] if args.system is None else [common_pb2.ChatMessage(role="system", content=args.system)]
    messages.append(common_pb2.ChatMessage(role="user", content=_prompt(args.prompt)))
    latency = gateway_pb2.LatencyTolerance(strict=args.strict)
    if args.ttft_ms is not None:
        latency.ttft.FromMilliseconds(args.ttft_ms)
    if args.total_ms is not None:
        latency.total.FromMilliseconds(args.total_ms)
    if args.latency_class is not None:
        latency.latency_class = gateway_pb2.LatencyClass.Value(f"LATENCY_CLASS_{args.latency_class.upper()}")
    request = gateway_pb2.GenerateRequest(
        messages=messages,
        sampling=common_pb2.Sampling(max_tokens=args.max_tokens, temperature=args.temperature, seed=args.seed),
        privacy_tags=_tags(args.tags),
        latency=latency,
        min_capability=args.min_capability,
    )
    if args.max_reach is not None:
        request.max_reach = common_pb2.Reach.Value(f"REACH_{args.max_reach.upper()}")
    return request


def _tags(argument: str | None) -> list[str]:
    if argument is None:
        return []
    tags = [tag.strip() for tag in argument.split(",") if tag.strip()]
    if not tags:
        raise RequestError("--tags names no tag; leave it out if the request has none")
    return tags


def _prompt(argument: str) -> str:
    if argument != "-":
        return argument
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as exc:
        raise RequestError(f"stdin is not UTF-8 (byte {exc.start})") from None


def _check_utf8(name: str, text: str) -> None:
    """Bytes of the command line that are no UTF-8 arrive as surrogates, which no wire format can carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RequestError(f"{name} is not UTF-8") from None


def _positive(text: str) -> int:
    value = _natural(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)
