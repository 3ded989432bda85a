"""One module per `flashgate` command: `add_parser(subparsers)` declares it, `run(args)` does it.

Heavy imports stand inside `run`, so that `--help` answers at once.
"""
