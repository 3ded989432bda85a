"""`flashgate-edge logits`: what the model says at every position of a sequence of token ids."""

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge.deviation_options import add_deviation_options
from edge.errors import RequestError

EPILOG = """\
examples:
  flashgate-edge logits ~/packs/qwen --ids 151644,872,198 --out logits.npy
  flashgate-edge logits ~/packs/qwen --ids @prompt.ids --out logits.npy --memory 6GB
  python -c 'import numpy; print(numpy.load("logits.npy").argmax(axis=1))'

The file holds float32 [tokens, vocabulary]: 1 MB for each token of a Qwen3.5.
"""
MOST_DIGITS = 18  # of a token id: Python refuses to read a number of thousands, and says so in its own words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "logits",
        help="write the logits of every position as a numpy file",
        description="Run token ids through a packed model and write what it says at every position to a .npy file.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="directory made by `flashgate-edge convert`")
    parser.add_argument(
        "--ids", required=True, metavar="1,2,3", help="token ids, or @FILE with ids between commas or spaces"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="F.npy", help="file to write, all of it or nothing")
    parser.add_argument(
        "--chunk", type=int, default=512, metavar="N", help="most tokens computed together (default: 512)"
    )
    parser.add_argument(
        "--prompt-tokens",
        type=int,
        metavar="N",
        help="compute the first N in chunks, the rest one by one (default: all)",
    )
    parser.add_argument("--memory", default="4GB", metavar="SIZE", help="what the process may hold (default: 4GB)")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="cores to use (default: all)"
    )
    add_deviation_options(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Raises RequestError, PackError, BudgetError, StorageError."""
    from edge import logs
    from edge.budget import parse_bytes
    from edge.engine import Engine
    from edge.engine_options import EngineOptions

    logs.configure()
    ids = parse_ids(args.ids)
    options = EngineOptions(
        memory_bytes=parse_bytes(args.memory),
        context_tokens=max(1, len(ids)),
        threads=args.threads,
        chunk_tokens=args.chunk,
        experts_per_token=args.experts_per_token,
        substitute=args.substitute,
        speculate="off",  # nothing is generated
    )
    engine = Engine.load(args.model, options)
    try:
        blocks = engine.logits_blocks(ids, args.chunk, args.prompt_tokens)
        write_npy(args.out, (len(ids), engine.config.vocab_size), blocks)
    finally:
        engine.close()
    return 0


def parse_ids(text: str) -> list[int]:
    """ "1,2,3", or "@FILE" of such, to ids. Raises RequestError naming what is no id."""
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except OSError as error:
            raise RequestError(f"cannot read the token ids from {text[1:]}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise RequestError(f"cannot read the token ids from {text[1:]}: not a text") from error
    words = text.replace(",", " ").split()
    for word in words:
        if not word.isascii() or not word.isdigit() or len(word) > MOST_DIGITS:
            raise RequestError(f"{word[:40]!r} is not a token id: write them like 1,2,3")
    return [int(word) for word in words]


def write_npy(path: Path, shape: tuple[int, int], blocks: "Iterator[NDArray[np.float32]]") -> None:
    """Write the rows of `blocks` as one array of `shape`; nothing appears at `path` before all are there."""
    from numpy.lib import format as npy

    if path.exists() and not path.is_file():
        raise RequestError(f"cannot write {path}: it is no regular file, and would be replaced by one")
    try:
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for block in blocks:
                file.write(block.data)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).chmod(0o644)
        Path(partial).replace(path)
    except BaseException as error:
        Path(partial).unlink()
        if isinstance(error, OSError):
            raise RequestError(f"cannot write {path}: {error.strerror}") from error
        raise
