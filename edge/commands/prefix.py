"""`flashgate-edge prefix`: what was kept of prompts on disk."""

import argparse
from contextlib import closing
from pathlib import Path

EPILOG = """\
examples:
  flashgate-edge prefix clear ~/flashgate-prefixes
  flashgate-edge prefix clear ~/flashgate-prefixes --tenant alice

What `serve --prefix-dir` keeps there is made from prompts, and who can read it can learn them. Clearing removes the
files; what a disk still holds of removed files is for the disk's own encryption to protect.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "prefix",
        help="remove what was kept of prompts on disk",
        description="Look after the directory in which `serve --prefix-dir` keeps prompts' beginnings.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION", title="actions")
    clear = actions.add_parser("clear", help="remove what is kept; no engine may use it meanwhile")
    clear.add_argument("directory", metavar="DIR", type=Path, help="the directory given as --prefix-dir")
    clear.add_argument("--tenant", metavar="NAME", help="only this tenant's; '' is who came without a name")
    clear.set_defaults(func=run_clear)


def run_clear(args: argparse.Namespace) -> int:
    """Remove all, or one tenant's."""
    from edge.errors import PrefixDirectoryError
    from edge.prefix.directory import PrefixDirectory
    from edge.prefix.keys import PrefixKeys

    if not args.directory.exists():
        raise PrefixDirectoryError(f"{args.directory}: there is no such directory")
    with closing(PrefixDirectory(args.directory, alone=True)) as directory:
        if args.tenant is None:
            num_removed = directory.clear()
        else:
            num_removed = directory.forget(PrefixKeys(directory.secret()).scope(args.tenant))
    print(f"removed {num_removed} {'snapshot' if num_removed == 1 else 'snapshots'}")
    return 0
