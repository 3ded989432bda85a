"""`flashgate-edge serve`: answer requests over gRPC."""

import argparse
import os
from pathlib import Path

from edge.deviation_options import add_deviation_options
from edge.speculation_options import add_speculation_options

EPILOG = """\
examples:
  flashgate-edge serve ~/packs/qwen --memory 6GB
  flashgate-edge serve ~/packs/qwen --memory 12GB --context 32768 --sequences 2 --queue 4
  flashgate-edge serve ~/packs/qwen --port 0 --metrics-port 0       # free ports; the ready line says which

Once a first request can be served, one line on stdout says so and where:
  ready flashgate-edge grpc=127.0.0.1:50051 metrics=127.0.0.1:9101 model=qwen
Where the pack has an MTP layer, tokens are drafted with it while that pays; no answer is another one for it.
What --experts-per-token or --substitute changed is told with each answer (`deviations`), in GetStatus and in metrics.
Logs are JSON lines on stderr and hold no prompts or answers. SIGTERM and Ctrl-C let running requests end, then exit 0.

The server has no credentials and no encryption of its own: another --host than this machine's own is for a network
whose every member may use the model.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "serve",
        help="answer requests over gRPC",
        description="Serve a packed model: EdgeService over gRPC, with health and reflection, and Prometheus metrics.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="directory made by `flashgate-edge convert`")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=50051, help="gRPC port; 0 takes a free one (default: 50051)")
    parser.add_argument(
        "--metrics-port",
        type=int,
        default=9101,
        help="port of /metrics and /healthz; 0 takes a free one (default: 9101)",
    )
    parser.add_argument(
        "--memory", default="2GB", metavar="SIZE", help="what server and engine may hold together (default: 2GB)"
    )
    parser.add_argument(
        "--context", type=int, default=4096, metavar="TOKENS", help="prompt and answer together (default: 4096)"
    )
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="of the engine (default: all cores)"
    )
    parser.add_argument(
        "--sequences",
        type=int,
        metavar="N",
        help="requests answered at once; each takes memory for its context (default: as many as are worth theirs)",
    )
    parser.add_argument(
        "--queue", type=int, default=16, metavar="N", help="requests that may wait; more are refused (default: 16)"
    )
    parser.add_argument(
        "--verify",
        choices=("first", "always", "off"),
        default="always",
        help="which reads of an expert are checked against its checksum (default: always)",
    )
    parser.add_argument(
        "--prefix-memory",
        metavar="SIZE",
        help="for prompts' beginnings that later ones of the same tenant may share, within --memory; 0 keeps none "
        "(default: as much as is worth it)",
    )
    parser.add_argument(
        "--prefix-disk", metavar="SIZE", default="0", help="as much of them on disk, to outlive the server (default: 0)"
    )
    parser.add_argument(
        "--prefix-dir", metavar="DIR", type=Path, help="where on disk; who may read it can read prompts out of it"
    )
    parser.add_argument(
        "--drain-seconds", type=float, default=30.0, metavar="S", help="for running requests at the end (default: 30)"
    )
    parser.add_argument(
        "--engine-timeout",
        type=float,
        default=120.0,
        metavar="S",
        help="an engine at work that gives no sign for so long is restarted (default: 120)",
    )
    add_speculation_options(parser)
    add_deviation_options(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    import grpc

    from edge import logs
    from edge.budget import parse_bytes
    from edge.server.node import serve
    from edge.server.node_options import NodeOptions

    options = NodeOptions(
        model=args.model,
        host=args.host,
        port=args.port,
        metrics_port=args.metrics_port,
        memory_bytes=parse_bytes(args.memory),
        context_tokens=args.context,
        threads=args.threads,
        queue=args.queue,
        drain_s=args.drain_seconds,
        engine_silence_s=args.engine_timeout,
        num_sequences=args.sequences,
        verify=args.verify,
        prefix_memory_bytes=None if args.prefix_memory is None else parse_bytes(args.prefix_memory),
        prefix_disk_bytes=parse_bytes(args.prefix_disk),
        prefix_dir=args.prefix_dir,
        speculate=args.speculate,
        draft_tokens=args.draft_tokens,
        experts_per_token=args.experts_per_token,
        substitute=args.substitute,
    )
    # gRPC reports that it could not write to a caller who left, which our `request_ended` says already.
    logs.configure(ignored=(grpc.aio.InternalError,))
    serve(options)
    return 0
