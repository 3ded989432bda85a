"""`flashgate-edge eval`: what fewer bits, and every other choice that trades quality for speed, cost in quality."""

import argparse
import json
import logging
import os
import shutil
from pathlib import Path

EPILOG = """\
examples:
  flashgate-edge eval CHECKPOINT --questions q.jsonl --bits 16 8 4 3.4 3 2 --work ~/eval
  flashgate-edge eval ~/packs/qwen4 ~/packs/qwen3 --reference ~/packs/qwen16 --text book.txt --memory 12GB
  flashgate-edge eval CHECKPOINT --questions q.jsonl --bits 4 3 2 --calibration ops/demo/calibration.jsonl
  flashgate-edge eval ~/packs/qwen --questions q.jsonl --k 6 4 --slots 256 --substitute 0.06 0.1

The repository has questions: ops/demo/questions.jsonl. A file of your own has one JSON object on each line:
  {"id": "dates-3", "task": "dates", "messages": [{"role": "user", "content": "Which day follows 2 May?"}],
   "reference": "3 May", "check": {"kind": "ends_with", "text": "3 May"}}
kinds of check: same_text {text}, last_number {number}, ends_with {text}, same_json {text}, mentions {wanted, unwanted}

right         questions whose check lets the greedy answer through, with the interval of Wilson
JSON valid    answers that are JSON, right or not, of the questions whose check is same_json
perplexity    exp of the mean of -ln p(token), over the reference answers given their prompts, or over --text
KL            mean of KL(reference || this) over the same tokens, in nats, ± half of a 95% interval over passages
same tokens   how often both find the same token the likeliest, given the right tokens before it
same answers  how often the greedy answers are the same, token by token
own experts   share of the experts used that the router chose, where --substitute lets others stand in

Rows that differ in --slots or --speculate alone must have the same answers and logits, byte for byte, as all experts in
RAM give; exit status 1 if they do not.

Each choice is varied alone, beside a row for each of MODEL and --bits. The first row is the reference.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "eval",
        help="measure quality: accuracy, perplexity, KL, agreement",
        description="Answer questions that a program judges, and compare what a model expects with a reference.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "models", metavar="MODEL", type=Path, nargs="+", help="packed model, or Hugging Face checkpoint to be packed"
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="MODEL",
        help="what to compare with (default: the first, a checkpoint at 16 bits)",
    )
    parser.add_argument("--questions", type=Path, metavar="FILE", help="questions as JSON Lines, see below")
    parser.add_argument("--tasks", metavar="A,B", help="only questions of these tasks (default: all)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N questions of each task (default: all)")
    parser.add_argument("--max-tokens", type=int, default=160, metavar="N", help="of an answer (default: 160)")
    parser.add_argument("--text", type=Path, metavar="FILE", help="measure perplexity and KL over this text instead")
    parser.add_argument(
        "--text-tokens", type=int, default=16384, metavar="N", help="of --text at most, from its start (default: 16384)"
    )
    parser.add_argument(
        "--bits",
        type=float,
        nargs="+",
        default=(),
        metavar="B",
        help="pack a checkpoint at each of these (default: 16)",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="also pack at each of --bits below 16 as `convert --calibration FILE` does",
    )
    parser.add_argument(
        "--k",
        "--experts-per-token",
        dest="experts_per_token",
        type=int,
        nargs="+",
        default=(),
        metavar="K",
        help="also run with K experts per token, fewer than the model's own",
    )
    parser.add_argument(
        "--substitute",
        type=float,
        nargs="+",
        default=(),
        metavar="SHARE",
        help="also let experts in RAM stand in for missing ones with less than SHARE of a token; with each of --slots",
    )
    parser.add_argument(
        "--speculate", action="store_true", help="also run with the MTP layer drafting: must be identical"
    )
    parser.add_argument(
        "--slots",
        type=int,
        nargs="+",
        default=(),
        metavar="N",
        help="also run with N experts in RAM: must be identical",
    )
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="keep packs and what is finished: a stopped run goes on from there"
    )
    parser.add_argument("--memory", default="4GB", metavar="SIZE", help="what the process may hold (default: 4GB)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="T", help="cores (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Measure and compare. Raises EvaluationError, CheckpointError, PackError, BudgetError, StorageError."""
    from edge import logs
    from edge.budget import parse_bytes
    from edge.evaluation.measure import Machine
    from edge.evaluation.run import evaluate
    from edge.evaluation.table import table
    from edge.evaluation.texts import read_texts
    from edge.evaluation.variants import Choices, variants

    logs.configure(level=logging.ERROR)  # what deviates is in the table; a line beside a progress bar helps nobody
    rows = variants(
        Choices(
            models=tuple(args.models),
            reference=args.reference,
            bits=tuple(args.bits),
            calibration=args.calibration,
            experts_per_token=tuple(args.experts_per_token),
            substitutes=tuple(args.substitute),
            slots=tuple(args.slots),
            speculates=args.speculate,
        )
    )
    texts = read_texts(
        args.questions,
        args.text,
        tasks=args.tasks.split(",") if args.tasks else None,
        limit=args.limit,
        max_tokens=args.max_tokens,
        text_tokens=args.text_tokens,
    )
    report = evaluate(rows, texts, Machine(parse_bytes(args.memory), args.threads), args.work)
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        print(table(report, shutil.get_terminal_size(fallback=(100, 24)).columns))
    return 1 if any(row["identical"] is False for row in report["rows"]) else 0
