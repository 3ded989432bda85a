"""`flashgate serve`: the gateway process."""

import argparse
import os
import sys
from pathlib import Path

from router.errors import ConfigError

KEY_VARIABLE = "FLASHGATE_CLOUD_API_KEY"
EPILOG = """\
examples:
  flashgate serve --edge 127.0.0.1:50051 --cloud 127.0.0.1:50052 --policy policy.yaml
  FLASHGATE_CLOUD_API_KEY=sk-... flashgate serve --cloud-openai https://api.openai.com/v1 --cloud-model gpt-5-mini

when it can serve it prints one line on stdout:
  ready flashgate grpc=... http=... policy=...
SIGHUP reads the policy file again; SIGTERM and SIGINT let running answers end, then exit. Logs are JSON lines on
stderr, without content. An edge whose address is not loopback counts as `fleet`, not `device`.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "serve",
        help="run the gateway",
        description="Run the gateway: gRPC and OpenAI-compatible HTTP in front of an edge node and a cloud.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--grpc-port", type=_port, default=50050, metavar="N", help="default: %(default)s; 0 is any")
    parser.add_argument("--http-port", type=_port, default=8080, metavar="N", help="default: %(default)s; 0 is any")
    parser.add_argument(
        "--edge",
        action="append",
        type=_address,
        metavar="HOST:PORT",
        help="an edge node; may be repeated (default: 127.0.0.1:50051)",
    )
    parser.add_argument("--no-edge", action="store_true", help="serve without an edge node")
    cloud = parser.add_mutually_exclusive_group()
    cloud.add_argument("--cloud", type=_address, metavar="HOST:PORT", help="a cloud that speaks CloudService")
    cloud.add_argument("--cloud-openai", metavar="URL", help="base URL of a cloud that speaks the OpenAI API")
    parser.add_argument("--cloud-model", default="", metavar="M", help="model to ask for (default: the cloud's own)")
    parser.add_argument(
        "--cloud-key-env",
        default=KEY_VARIABLE,
        metavar="NAME",
        help="environment variable that holds the key for --cloud-openai (default: %(default)s)",
    )
    for lane, default in (("edge", "standard"), ("cloud", "frontier")):
        text = f"the {lane}'s capability class, by a name of the policy (default: %(default)s)"
        parser.add_argument(f"--{lane}-capability", default=default, metavar="NAME", help=text)
    parser.add_argument("--policy", type=Path, metavar="FILE", help="routing policy (default: the built-in one)")
    parser.add_argument(
        "--api-keys", type=Path, metavar="FILE", help="lines `tenant sha256-of-key`; without it no key is asked for"
    )
    parser.add_argument(
        "--drain-seconds",
        type=_seconds,
        default=20.0,
        metavar="S",
        help="how long running answers may take at the end (default: %(default)s)",
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Raises ConfigError, PolicyError."""
    import asyncio

    from router import logging
    from router.gateway.process import ServeOptions, serve

    if args.no_edge and args.edge:
        raise ConfigError("--no-edge and --edge contradict each other")
    if args.no_edge and not (args.cloud or args.cloud_openai):
        raise ConfigError("nothing could answer: give --edge, --cloud or --cloud-openai")
    options = ServeOptions(
        host=args.host,
        grpc_port=args.grpc_port,
        http_port=args.http_port,
        edges=() if args.no_edge else tuple(args.edge or ("127.0.0.1:50051",)),
        cloud=args.cloud,
        cloud_openai=args.cloud_openai,
        cloud_model=args.cloud_model,
        edge_capability=args.edge_capability,
        cloud_capability=args.cloud_capability,
        cloud_key=_key(args.cloud_key_env) if args.cloud_openai else "",
        policy=args.policy,
        api_keys=args.api_keys,
        drain_s=args.drain_seconds,
    )
    asyncio.run(serve(options, logging.configure(), sys.stdout))
    return 0


def _key(variable: str) -> str:
    """Empty if the default variable is unset: many servers of one's own ask for no key."""
    value = os.environ.get(variable, "")
    if not value and variable != KEY_VARIABLE:
        raise ConfigError(f"--cloud-key-env {variable}: this environment variable is empty or not set")
    return value


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port (0 to 65535)")
    return int(text)


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if text.startswith("unix:") or (host and port.isdigit() and 0 < int(port) <= 65535):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} must be HOST:PORT")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} must be from 0 to 3600 seconds")
    return value
