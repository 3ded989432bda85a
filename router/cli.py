"""The `flashgate` command: finds the commands in `router.commands` and turns their errors into one clear line."""

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from router import commands
from router.errors import RouterError

EPILOG = """\
ask a running gateway (`ops/up` or `flashgate up` starts one):
  flashgate ask "Why is the sky blue?"
  flashgate ask "Summarise this patient's history: ..." --tags phi --ttft-ms 500
  flashgate ask "What would happen to this?" --tags internal --explain

`flashgate COMMAND --help` explains each command.
"""


def build_parser() -> argparse.ArgumentParser:
    """Every command of `router.commands`, in alphabetical order."""
    parser = argparse.ArgumentParser(
        prog="flashgate",
        description="A gateway that keeps private requests on a device you own and lets the rest use the cloud.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"flashgate {version('flashgate')}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for module in sorted(pkgutil.iter_modules(commands.__path__), key=lambda m: m.name):
        importlib.import_module(f"router.commands.{module.name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit status: 0 done, 1 an error that was explained, 2 wrong usage, 130 interrupted."""
    args = build_parser().parse_args(argv)
    try:
        status: int = args.func(args)
        sys.stdout.flush()  # here, where what fails can still be said
    except RouterError as error:
        print(f"flashgate: error: {error}", file=sys.stderr)
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
        print(f"flashgate: error: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    return status


def _drop_unwritten_output() -> None:
    """Let what stdout cannot take go nowhere: the interpreter's flush at exit would fail on it and say so."""
    try:
        sys.stdout.flush()
    except OSError:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
