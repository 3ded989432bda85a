"""`flashgate-edge trace`: record which experts a model asks for while it answers real prompts."""

import argparse
import os
from pathlib import Path

EPILOG = """\
examples:
  flashgate-edge trace ~/packs/qwen --prompts prompts.jsonl --out chat.trace --memory 12GB
  flashgate-edge trace ~/packs/demo --prompts ops/demo/questions.jsonl --limit 100 --out demo.trace
  flashgate-edge cache-plot chat.trace --out pictures
  flashgate-edge cache-sim chat.trace --slots 256,512,1024
  flashgate-edge plan ~/packs/qwen --memory 12GB --trace chat.trace

Prompts are JSON Lines: on each line {"messages": [{"role": "user", "content": "…"}]} or {"prompt": "…"}; other fields
are passed over. The trace holds numbers of layers and experts and no text; but who has the model could tell something
of the text from them. It does not depend on --memory or speed, only on the prompts and the model.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "trace",
        help="record which experts real prompts ask for",
        description="Answer prompts one after another, greedily, and write down which experts each layer asked for.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="directory made by `flashgate-edge convert`")
    parser.add_argument("--prompts", required=True, metavar="FILE", type=Path, help="prompts as JSON Lines, see below")
    parser.add_argument("--out", required=True, metavar="FILE", type=Path, help="the trace to be written")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N prompts (default: all)")
    parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="of each answer (default: 256)")
    parser.add_argument("--memory", default="2GB", metavar="SIZE", help="what the process may hold (default: 2GB)")
    parser.add_argument(
        "--context", type=int, default=2048, metavar="TOKENS", help="prompt and answer together (default: 2048)"
    )
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="cores to use (default: all)"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Record. Raises RequestError, PackError, BudgetError, StorageError; OSError if the trace cannot be written."""
    from contextlib import closing

    from edge import logs
    from edge.bench.record import record
    from edge.budget import parse_bytes
    from edge.checkpoint.pack import Pack
    from edge.engine import Engine
    from edge.engine_options import EngineOptions
    from edge.progress import count_progress
    from edge.prompt import PromptEncoder
    from edge.prompt_file import read_prompts
    from edge.tokenizer import Tokenizer

    logs.configure()
    pack = Pack.open(args.model)
    _ = pack.experts  # or refuse a model that has none
    tokenizer = None if pack.tokenizer_dir is None else Tokenizer.from_dir(pack.tokenizer_dir)
    prompts = read_prompts(args.prompts, PromptEncoder(tokenizer, pack.config.vocab_size, args.context), args.limit)
    options = EngineOptions(
        memory_bytes=parse_bytes(args.memory),
        context_tokens=args.context,
        threads=args.threads,
        max_sequences=1,
        speculate="off",  # a pass is to be one token's
    )
    with (
        closing(Engine.load(args.model, options)) as engine,
        count_progress("answering", len(prompts), "prompts") as bar,
    ):
        num_tokens = record(engine, prompts, args.max_tokens, args.out, bar.update)
    print(f"wrote {args.out}: {len(prompts)} prompts, {num_tokens} tokens of answers")
    return 0
