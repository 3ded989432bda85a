"""One answer on a terminal: progress and figures on stderr, the answer itself on stdout."""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tqdm import tqdm

from edge.answer import AnswerStream
from edge.budget import format_bytes, parse_bytes
from edge.checkpoint.pack import Pack
from edge.deviation import Deviation, RoutingCounts
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.errors import RequestError
from edge.prompt import ChatMessage, PromptEncoder
from edge.sampler import SamplingParams
from edge.tokenizer import SamplingDefaults, Tokenizer

if TYPE_CHECKING:
    from edge.events import GenerationStats

# A prompt that takes less than this needs no progress.
PATIENCE_S = 1.0
INTERRUPTED = 130


def generate(args: argparse.Namespace) -> int:
    """Answer as the command line asks; returns the exit status. Raises: EdgeError.

    What is wrong with the request is said before the weights are loaded.
    """
    pack = Pack.open(args.model)
    tokenizer = None if pack.tokenizer_dir is None else Tokenizer.from_dir(pack.tokenizer_dir)
    ids = _prompt_ids(args, PromptEncoder(tokenizer, pack.config.vocab_size, args.context))
    sampling = _sampling(args, tokenizer.defaults if tokenizer else SamplingDefaults())
    answer = AnswerStream(tokenizer, args.stop, tokenizer.eos_token_ids if tokenizer else ())
    options = EngineOptions(
        memory_bytes=parse_bytes(args.memory),
        context_tokens=args.context,
        threads=args.threads,
        verify=args.verify,
        speculate=args.speculate,
        draft_tokens=args.draft_tokens,
        experts_per_token=args.experts_per_token,
        substitute=args.substitute,
    )
    with _loading() as progress:
        engine = Engine.load(args.model, options, progress)
    with contextlib.closing(engine):
        ended = _stream(engine, ids, sampling, answer, _write_text if tokenizer else _write_ids)
        _print_summary(engine.last, engine.deviation, engine.stats().memory_bytes, ended)
    return INTERRUPTED if ended == "interrupted" else 0


def _prompt_ids(args: argparse.Namespace, encoder: PromptEncoder) -> list[int]:
    if args.ids is not None:
        if args.chat:
            raise RequestError("--chat needs --prompt: token ids are taken as they are")
        return encoder.token_ids(args.ids)
    if args.chat:
        return encoder.chat([ChatMessage("user", args.prompt)])
    return encoder.text(args.prompt)


def _sampling(args: argparse.Namespace, defaults: SamplingDefaults) -> SamplingParams:
    return SamplingParams(
        max_tokens=args.max_tokens,
        temperature=defaults.temperature if args.temperature is None else args.temperature,
        top_p=defaults.top_p if args.top_p is None else args.top_p,
        top_k=defaults.top_k if args.top_k is None else args.top_k,
        min_p=defaults.min_p if args.min_p is None else args.min_p,
        seed=args.seed,
    )


Write = Callable[[tuple[int, ...], str], None]


def _stream(engine: Engine, ids: list[int], sampling: SamplingParams, answer: AnswerStream, write: Write) -> str:
    """Write the answer as it comes; returns why it ended. Ctrl-C ends it between two tokens."""
    try:
        with _waiting(len(ids)) as prompt_progress:
            tokens = engine.generate(ids, sampling, prompt_progress)
            first = next(tokens, None)
        if first is not None:
            _write_answer(first, tokens, answer, write)
    except KeyboardInterrupt:
        return "interrupted"
    finally:
        sys.stdout.write("\n")
        sys.stdout.flush()
    # Ended by us, at a stop text, it has no reason of its own.
    return engine.last.finish_reason or "stop"


def _write_answer(first: int, others: Iterator[int], answer: AnswerStream, write: Write) -> None:
    token: int | None = first
    while token is not None:
        piece = answer.push(token)
        write(piece.ids, piece.text)
        if piece.is_last:
            return
        token = next(others, None)
    write((), answer.finish())


def _write_text(ids: tuple[int, ...], text: str) -> None:  # noqa: ARG001 -- the signature of both
    sys.stdout.write(text)
    sys.stdout.flush()


def _write_ids(ids: tuple[int, ...], text: str) -> None:  # noqa: ARG001
    sys.stdout.write("".join(f"{token} " for token in ids))
    sys.stdout.flush()


@contextlib.contextmanager
def _loading() -> Iterator[Callable[[int, int], None]]:
    with tqdm(desc="loading", unit="B", unit_scale=True, leave=False, disable=None, delay=PATIENCE_S) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


@contextlib.contextmanager
def _waiting(num_tokens: int) -> Iterator[Callable[[], bool]]:
    """The engine's `should_stop`: it is asked before every layer, which is a good moment to show that work goes on."""
    began = time.monotonic()
    with tqdm(
        desc=f"reading {num_tokens} prompt tokens", unit=" layers", leave=False, disable=None, delay=PATIENCE_S
    ) as bar:

        def show_and_go_on() -> bool:
            if not bar.disable and time.monotonic() - began > PATIENCE_S:
                bar.update()
            return False

        yield show_and_go_on


def _print_summary(stats: "GenerationStats", deviation: Deviation | None, memory_bytes: int, ended: str) -> None:
    decoded = max(0, stats.completion_tokens - 1)
    hits = f"{stats.expert_hits / stats.expert_lookups:.1%}" if stats.expert_lookups else "no look-ups"
    lines = (
        f"prompt              {stats.prompt_tokens} tokens, {_rate(stats.prompt_tokens, stats.prefill_seconds)}",
        f"decode              {stats.completion_tokens} tokens, {_rate(decoded, stats.decode_seconds)}",
        f"time to first token {stats.ttft_seconds:.3f} s",
        f"expert cache        {hits} hit rate, {format_bytes(stats.expert_read_bytes)} read from disk",
        *([_drafts(stats)] if stats.drafted_tokens else ()),
        *(_deviations(deviation, stats.routing) if deviation else ()),
        f"memory              {format_bytes(memory_bytes)}",
        f"finish reason       {ended}",
    )
    sys.stderr.write("\n".join(("", *lines, "")))


def _drafts(stats: "GenerationStats") -> str:
    share = stats.accepted_tokens / stats.drafted_tokens
    return f"drafted             {stats.drafted_tokens} tokens, {share:.1%} of them right"


def _deviations(deviation: Deviation, routing: RoutingCounts) -> Iterator[str]:
    if deviation.experts != deviation.own_experts:
        yield f"experts per token   {deviation.experts}, the model's own are {deviation.own_experts}"
    if deviation.substitute is not None:
        agreement = routing.agreement(deviation.experts)
        yield f"experts replaced    {routing.substituted}: {agreement:.1%} were the router's own"
    yield f"router's weight     {routing.mean_weight_kept:.1%} of that of the model's own choice"


def _rate(tokens: int, seconds: float) -> str:
    return f"{tokens / seconds:.2f} tokens/s" if tokens and seconds > 0 else "too few to measure"
