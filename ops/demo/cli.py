"""The commands that make the demo model, in the order in which they are used."""

import argparse
import dataclasses
import json
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from ops.demo.questions import FILE, PER_TASK, question_file
from ops.demo.recipe import Recipe

EPILOG = """\
From nothing to a model, which training can be stopped and killed at any time:
  python -m ops.demo sample --count 5                 # chats as training sees them
  python -m ops.demo tokenizer RUN                    # seconds
  python -m ops.demo train RUN --minutes 60           # again and again until it says done; --help for the recipe
  python -m ops.demo evaluate RUN --per-task 100      # held-out questions, judged by program
  python -m ops.demo export RUN OUT                   # a checkpoint: flashgate-edge convert OUT PACK
  python -m ops.demo card OUT                         # OUT/MODEL_CARD.md, with what it gets right and wrong
  python -m ops.demo questions                        # the examination for: flashgate-edge eval OUT --questions
Needs the extra `demo`: pip install -e '.[demo]'
"""
TOKENIZER_CHATS = 40_000


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    args = _parser().parse_args(arguments)
    try:
        status: int = args.run(args)
    except (OSError, ValueError) as error:
        print(f"ops.demo: error: {error}", file=sys.stderr)
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m ops.demo",
        description="Data, training and examination of flashgate's demo model.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    sample = commands.add_parser("sample", help="print chats of the training data or of the examination")
    sample.add_argument("--count", type=int, default=10, help="how many (default: %(default)s)")
    sample.add_argument("--seed", default="0", help="the same seed gives the same chats (default: %(default)s)")
    sample.add_argument("--held-out", action="store_true", help="of the examination")
    sample.set_defaults(run=_sample)

    tokenizer = commands.add_parser("tokenizer", help="train the tokenizer on generated chats")
    tokenizer.add_argument("folder", metavar="RUN", type=Path, help="folder of a training")
    tokenizer.set_defaults(run=_tokenizer)

    train = commands.add_parser(
        "train",
        help="train, from where the last run was stopped",
        description="Train. The state in RUN is saved whole every minute and when Ctrl-C or SIGTERM ends the run after "
        "its step; a killed run goes on from the last save. Numbers of the recipe may be changed between runs.",
    )
    train.add_argument("folder", metavar="RUN", type=Path, help="folder with the tokenizer, the state and log.jsonl")
    train.add_argument("--minutes", type=float, default=600, help="stop after so long (default: %(default)s)")
    train.add_argument("--threads", type=int, default=2, help="cores to use (default: %(default)s)")
    train.add_argument("--save-every", type=float, default=60, metavar="S", help="seconds (default: %(default)s)")
    train.add_argument("--examine-every", type=float, default=600, metavar="S", help="seconds (default: %(default)s)")
    train.add_argument("--examine-items", type=int, default=24, help="questions per task (default: %(default)s)")
    for field in dataclasses.fields(Recipe):
        name = "--" + field.name.replace("_", "-")
        train.add_argument(name, type=type(field.default), default=field.default, help="default: %(default)s")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="answer held-out questions and judge them")
    evaluate.add_argument("folder", metavar="FOLDER", type=Path, help="a training's folder or an exported model")
    evaluate.add_argument("--per-task", type=int, default=50, help="questions (default: %(default)s)")
    evaluate.add_argument("--failures", type=int, default=3, help="wrong answers shown per task (default: %(default)s)")
    evaluate.add_argument("--threads", type=int, default=2, help="cores to use (default: %(default)s)")
    evaluate.set_defaults(run=_evaluate)

    questions = commands.add_parser(
        "questions",
        help="write the examination as a question file",
        description="Write held-out questions with their judges as JSON Lines, for `flashgate-edge eval --questions`.",
    )
    questions.add_argument(
        "--out", type=Path, default=FILE, metavar="FILE", help="file to write (default: %(default)s)"
    )
    questions.add_argument("--per-task", type=int, default=PER_TASK, help="questions (default: %(default)s)")
    questions.set_defaults(run=_questions)

    export = commands.add_parser("export", help="write the model as a Hugging Face checkpoint")
    export.add_argument("folder", metavar="RUN", type=Path, help="folder of a training")
    export.add_argument("out", metavar="OUT", type=Path, help="directory to write")
    export.set_defaults(run=_export)

    card = commands.add_parser("card", help="examine an exported model and write its MODEL_CARD.md")
    card.add_argument("folder", metavar="MODEL", type=Path, help="directory that `export` wrote; the model's name")
    card.add_argument("--per-task", type=int, default=100, help="questions (default: %(default)s)")
    card.add_argument("--threads", type=int, default=2, help="cores to use (default: %(default)s)")
    card.set_defaults(run=_card)
    return parser


def _sample(args: argparse.Namespace) -> int:
    from ops.demo.tasks import mixture
    from ops.demo.tasks.draw import Side

    for chat in islice(mixture(args.seed, Side.HELD_OUT if args.held_out else Side.TRAIN), args.count):
        print(f"-- {chat.task}")
        for turn in chat.turns:
            print(f"user: {turn.question}\nassistant: {turn.answer}")
    return 0


def _tokenizer(args: argparse.Namespace) -> int:
    from ops.demo.tasks import mixture
    from ops.demo.tokenizer import train_tokenizer

    chats = islice(mixture("tokenizer"), TOKENIZER_CHATS)
    train_tokenizer(
        (text for chat in chats for turn in chat.turns for text in (turn.question, turn.answer)), args.folder
    )
    return 0


def _train(args: argparse.Namespace) -> int:
    import torch

    from ops.demo.examination import examine, items, table, transformers_answerer
    from ops.demo.memory import keep_memory
    from ops.demo.training import Training

    keep_memory()
    torch.set_num_threads(args.threads)
    recipe = Recipe(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Recipe)})
    training = Training(args.folder, recipe)

    def exam(training: Training) -> None:
        answer = transformers_answerer(training.model.causal, training.tokenizer)
        results = examine(answer, items(args.examine_items))
        text = f"after {training.tokens_seen} tokens\n{table(results, 2)}\n"
        with (args.folder / "examinations.txt").open("a", encoding="utf-8") as file:
            file.write(text)

    with _stop_signals() as is_stopped:
        training.run(
            seconds=60 * args.minutes,
            save_every_s=args.save_every,
            examine_every_s=args.examine_every,
            examine=exam,
            say=lambda line: print(line, flush=True),
            is_stopped=is_stopped,
        )
    print("done" if training.is_done else f"stopped after {training.tokens_seen} of {recipe.tokens} tokens")
    return 0


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came, which meanwhile end nothing themselves."""
    stopped = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _evaluate(args: argparse.Namespace) -> int:
    import torch
    from transformers import Qwen3_5MoeForCausalLM

    from ops.demo.examination import examine, items, table, transformers_answerer
    from ops.demo.recipe import Recipe
    from ops.demo.text import load_tokenizer
    from ops.demo.training import Training

    torch.set_num_threads(args.threads)
    if (args.folder / "config.json").exists():
        model = Qwen3_5MoeForCausalLM.from_pretrained(args.folder, dtype=torch.float32)
    else:
        model = Training(args.folder, Recipe()).model.causal
    answer = transformers_answerer(model, load_tokenizer(args.folder))
    print(table(examine(answer, items(args.per_task)), args.failures))
    return 0


def _questions(args: argparse.Namespace) -> int:
    args.out.write_text(question_file(args.per_task), encoding="utf-8")
    print(f"wrote {args.out}: {args.out.stat().st_size} bytes")
    return 0


def _export(args: argparse.Namespace) -> int:
    from ops.demo.export import export_checkpoint
    from ops.demo.state import load_state
    from ops.demo.training import Training

    state = load_state(args.folder)
    if state is None:
        raise ValueError(f"{args.folder} holds no state: python -m ops.demo train {args.folder} makes one")
    story = {"steps": state.step, "tokens": state.tokens_seen, "seconds": round(state.seconds), "recipe": state.recipe}
    size = export_checkpoint(Training(args.folder, Recipe()).model, args.folder, args.out, story)
    print(f"wrote {args.out}: {size} bytes of weights")
    return 0


def _card(args: argparse.Namespace) -> int:
    import torch
    from safetensors import safe_open
    from transformers import Qwen3_5MoeForCausalLM

    from ops.demo.card import card
    from ops.demo.examination import examine, items, transformers_answerer
    from ops.demo.text import load_tokenizer

    torch.set_num_threads(args.threads)
    model = Qwen3_5MoeForCausalLM.from_pretrained(args.folder, dtype=torch.float32)
    results = examine(transformers_answerer(model, load_tokenizer(args.folder)), items(args.per_task))
    config, training = (json.loads((args.folder / f"{name}.json").read_text()) for name in ("config", "training"))
    with safe_open(args.folder / "model.safetensors", "np") as weights:
        parameters = sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    out = args.folder / "MODEL_CARD.md"
    out.write_text(card(args.folder.resolve().name, config, parameters, training, results), encoding="utf-8")
    print(f"wrote {out}")
    return 0
