"""`flashgate up`: edge node, cloud stub and gateway on this machine, as one command."""

import argparse
from pathlib import Path

EPILOG = """\
examples:
  flashgate up                                            a small random model, built on the first run
  flashgate up --model ~/packs/qwen --memory 12GB         a model that `flashgate-edge convert` packed
  flashgate up --policy policy.yaml --cloud-record sent.jsonl    watch what reaches the cloud

when a first request can be served, one line on stdout names every address:
  ready flashgate gateway-grpc=… http=… edge=… edge-metrics=… cloud=… cloud-metrics=… model=… policy=…
Ctrl-C or SIGTERM stops everything; a second one does not wait for answers in progress. A process that dies is
restarted, after a pause that grows. Logs of all are JSON lines on stderr, without content.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `up`."""
    parser = subparsers.add_parser(
        "up",
        help="start edge node, cloud stub and gateway together",
        description="Start `flashgate-edge serve`, `flashgate-cloud-stub serve` and `flashgate serve` as its children.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, metavar="DIR", help="packed model (default: a small random one)")
    parser.add_argument("--memory", default="2GB", metavar="SIZE", help="what the edge may hold (default: %(default)s)")
    parser.add_argument("--policy", type=Path, metavar="FILE", help="routing policy (default: the built-in one)")
    parser.add_argument(
        "--cloud-record", type=Path, metavar="FILE", help="append every request that reaches the cloud stub to FILE"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="where the random model is kept (default: $XDG_DATA_HOME/flashgate, else ~/.local/share/flashgate)",
    )
    _add_ports(parser.add_argument_group("ports on 127.0.0.1, 0 for any free one"))
    parser.set_defaults(func=run)


def _add_ports(group: argparse._ArgumentGroup) -> None:
    for option, default, what in (
        ("--grpc-port", 50050, "gateway, gRPC"),
        ("--http-port", 8080, "gateway, HTTP"),
        ("--edge-port", 50051, "edge node, gRPC"),
        ("--edge-metrics-port", 9101, "edge node, metrics"),
        ("--cloud-port", 50052, "cloud stub, gRPC"),
        ("--cloud-metrics-port", 9102, "cloud stub, HTTP and metrics"),
    ):
        group.add_argument(option, type=int, default=default, metavar="N", help=f"{what} (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Raises ConfigError, PolicyError."""
    import asyncio

    from router.up.addresses import Ports
    from router.up.session import UpOptions, up

    ports = Ports(
        grpc=args.grpc_port,
        http=args.http_port,
        edge=args.edge_port,
        edge_metrics=args.edge_metrics_port,
        cloud=args.cloud_port,
        cloud_metrics=args.cloud_metrics_port,
    )
    asyncio.run(up(UpOptions(ports, args.memory, args.model, args.policy, args.cloud_record, args.data)))
    return 0
