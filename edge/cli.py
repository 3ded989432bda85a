"""The `flashgate-edge` command: finds the commands in `edge.commands` and turns their errors into one clear line."""

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from edge import commands
from edge.errors import EdgeError

EPILOG = """\
from a checkpoint to an answer:
  flashgate-edge convert ~/models/Qwen3.5-35B-A3B ~/packs/qwen --bits 4
  flashgate-edge generate ~/packs/qwen --prompt "The capital of France is" --max-tokens 16 --memory 6GB
  flashgate-edge serve ~/packs/qwen --memory 6GB

`flashgate-edge COMMAND --help` explains each command.
"""


def build_parser() -> argparse.ArgumentParser:
    """Every command of `edge.commands`, in alphabetical order."""
    parser = argparse.ArgumentParser(
        prog="flashgate-edge",
        description="Run a Qwen3 or Qwen3.5 model whose experts, or layers, stream from disk.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"flashgate-edge {version('flashgate')}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for module in sorted(pkgutil.iter_modules(commands.__path__), key=lambda m: m.name):
        importlib.import_module(f"edge.commands.{module.name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit status: 0 done, 1 an error that was explained, 2 wrong usage, 130 interrupted."""
    try:
        _open_missing_streams()
        args = build_parser().parse_args(argv)
        status: int = args.func(args)
        sys.stdout.flush()  # here, where what fails can still be said
    except EdgeError as error:
        print(f"flashgate-edge: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output (`| head`) went away: nothing is left to say, and nobody to say it to.
        _drop_unwritten_output()
        return 0
    except OSError as error:  # a full disk or the like, where the command knew nothing better to say
        _drop_unwritten_output()
        where = f"{error.filename}: " if error.filename else ""
        print(f"flashgate-edge: error: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    return status


def _open_missing_streams() -> None:
    """Let what goes to a stream that the shell closed (`>&-`) go nowhere, and no file of ours take its place."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 -- for as long as the process lives


def _drop_unwritten_output() -> None:
    """Let what stdout cannot take go nowhere: the interpreter's flush at exit would fail on it and say so."""
    try:
        sys.stdout.flush()
    except OSError:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
