"""The `flashgate-cloud-stub` command."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from cloud_stub.answer import DEFAULT_TEXT
from cloud_stub.errors import StartError
from cloud_stub.scenario import Scenario
from cloud_stub.status import Status

DEFAULT_MODEL = "flashgate-cloud-stub"

EPILOG = """\
a cloud that answers, and a record of what it was sent:
  flashgate-cloud-stub serve --record received.jsonl
  curl -s localhost:9102/v1/chat/completions -H 'content-type: application/json' \\
    -d '{"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}'

a slow one, one that fails three requests in ten, one that breaks off, one that never answers:
  flashgate-cloud-stub serve --ttft-ms 400 --tokens-per-second 30
  flashgate-cloud-stub serve --fail-rate 0.3 --seed 7
  flashgate-cloud-stub serve --cut-after 5
  flashgate-cloud-stub serve --hang

`flashgate-cloud-stub serve --help` explains each option.
"""

SERVE_EPILOG = """\
scenarios combine: a request first meets --status (always, or the share --fail-rate), then --hang, then the pace of
--ttft-ms and --tokens-per-second, then --cut-after. --status takes a gRPC name (UNAVAILABLE) or an HTTP number (503);
each protocol answers with its own form of it, and RESOURCE_EXHAUSTED and UNAVAILABLE say when to retry.

when it can serve, it prints one line on stdout:
  ready flashgate-cloud-stub grpc=127.0.0.1:50052 http=127.0.0.1:9102 metrics=127.0.0.1:9102
    model=flashgate-cloud-stub
SIGTERM or Ctrl-C lets running answers end, for at most 5 seconds. Logs are JSON lines on stderr, without content.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flashgate-cloud-stub",
        description="A stand-in for a cloud model: answers every request with one stated text, and fails as asked.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"flashgate-cloud-stub {version('flashgate')}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    serve = subparsers.add_parser(
        "serve",
        help="answer over gRPC and over OpenAI-compatible HTTP",
        description="Answer flashgate.v1.CloudService over gRPC, and the OpenAI chat API over HTTP.",
        epilog=SERVE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_address(serve.add_argument_group("addresses and identity"))
    _add_scenario(serve.add_argument_group("scenarios"))
    serve.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="append every request received, credentials included, as a JSON line (default: keep nothing)",
    )
    serve.set_defaults(func=_serve)
    return parser


def _add_address(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    group.add_argument("--port", type=int, default=50052, help="gRPC port, 0 for any free one (default: %(default)s)")
    group.add_argument(
        "--metrics-port",
        type=int,
        default=9102,
        help="HTTP port of the OpenAI API (/v1/…), /healthz and /metrics, 0 for any free one (default: %(default)s)",
    )
    group.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="NAME", help="name it answers under (default: %(default)s)"
    )
    group.add_argument("--text", default=DEFAULT_TEXT, help="what it answers (default: a text that says it is a stub)")


def _add_scenario(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--ttft-ms", type=float, default=0, metavar="MS", help="time to first token (default: none)")
    group.add_argument("--tokens-per-second", type=float, metavar="N", help="pace after it (default: unlimited)")
    group.add_argument(
        "--fail-rate", type=float, metavar="P", help="share of requests, 0 to 1, that fail before the first token"
    )
    group.add_argument(
        "--status",
        type=_status,
        metavar="CODE",
        help="how they fail (default: UNAVAILABLE); alone: all requests fail so",
    )
    group.add_argument("--cut-after", type=int, metavar="N", help="break the stream after N tokens")
    group.add_argument("--hang", action="store_true", help="accept requests and never answer")
    group.add_argument("--seed", type=int, default=0, help="which requests --fail-rate hits (default: %(default)s)")


def _status(text: str) -> Status:
    try:
        return Status.parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _serve(args: argparse.Namespace) -> int:
    from cloud_stub import logs
    from cloud_stub.serve import Options, serve

    scenario = Scenario(
        ttft_s=args.ttft_ms / 1000,
        tokens_per_second=args.tokens_per_second,
        fail_rate=args.fail_rate,
        status=args.status,
        cut_after=args.cut_after,
        hang=args.hang,
        seed=args.seed,
    )
    options = Options(args.host, args.port, args.metrics_port, args.model, args.text, scenario, args.record)
    logs.configure()
    asyncio.run(serve(options))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit status: 0 done, 1 an error that was explained, 2 wrong usage, 130 interrupted."""
    args = build_parser().parse_args(argv)
    try:
        status: int = args.func(args)
    except StartError as error:
        print(f"flashgate-cloud-stub: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status
