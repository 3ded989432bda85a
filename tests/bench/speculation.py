"""What drafting with the MTP layer gains: the same answers with and without, taking turns in one process.

    python tests/bench/speculation.py PACK [--slots N] [--depth D] [--tokens N] [--rounds N] [--threads N]
                                      [--temperature T] [--prompt TEXT ...] [--right P] [--auto]

Each round generates every answer once without drafts and once with them, and checks that they are the same. Reported:
the share of the drafts that were right, tokens per pass, what a pass with drafts takes by one without, and the
speed-up, each round's own: its median and its spread. --slots keeps only so many experts in RAM, the others stream.
The same of processor time says what a busy machine hides, but not what waits for a disk.

Random weights draft nothing right. For such packs, --right P lets each draft be right with that probability, told from
the answer that the run without drafts gave; the layer is computed all the same, so that the cost is the real one.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edge.batch import Batch
from edge.checkpoint.pack import Pack
from edge.engine import Engine
from edge.engine_options import EngineOptions, Speculate
from edge.events import GenerationStats
from edge.prompt import ChatMessage, PromptEncoder
from edge.sampler import SamplingParams
from edge.speculation.drafter import Drafter, DraftRequest
from edge.speculation.speculation import AlwaysOpen, Speculation
from edge.state import SequenceState
from edge.tokenizer import Tokenizer

CONTEXT_TOKENS = 1024
PROMPT_TOKENS = 32  # of packs without a tokenizer
PROMPTS = ("What is 17 + 25?", "Sort these numbers: 9, 3, 14, 7, 1.", "Why does a request with the tag phi stay here?")


@dataclass
class Answers:
    """Of one engine in one round, and the processor time of their tokens after the first."""

    stats: list[GenerationStats] = field(default_factory=list)
    cpu_seconds: float = 0.0

    def generate(self, engine: Engine, ids: list[int], sampling: SamplingParams) -> list[int]:
        tokens = engine.generate(ids, sampling)
        first = next(tokens)
        began = time.process_time()
        answer = [first, *tokens]
        self.cpu_seconds += time.process_time() - began
        self.stats.append(engine.last)
        return answer

    @property
    def seconds(self) -> float:
        return sum(stats.decode_seconds for stats in self.stats)

    @property
    def read_bytes(self) -> int:
        """Prompts and all."""
        return sum(stats.expert_read_bytes for stats in self.stats)

    @property
    def decoded_tokens(self) -> int:
        return sum(stats.completion_tokens - 1 for stats in self.stats)

    @property
    def accepted_tokens(self) -> int:
        return sum(stats.accepted_tokens for stats in self.stats)


@dataclass
class Round:
    """All answers once without drafts and once with them."""

    plain: Answers = field(default_factory=Answers)
    drafted: Answers = field(default_factory=Answers)

    @property
    def speed_up(self) -> float:
        """Of decoding, the prompts left out."""
        return self.plain.seconds / self.drafted.seconds

    @property
    def cpu_speed_up(self) -> float:
        """The same of processor time."""
        return self.plain.cpu_seconds / self.drafted.cpu_seconds

    @property
    def tokens_per_pass(self) -> float:
        """Each accepted draft saves a pass."""
        return self.drafted.decoded_tokens / (self.drafted.decoded_tokens - self.drafted.accepted_tokens)

    @property
    def acceptance(self) -> float:
        """Share of the drafts that were right."""
        return self.drafted.accepted_tokens / max(1, sum(stats.drafted_tokens for stats in self.drafted.stats))


class ToldRight:
    """Drafts as often right as wanted, at the layer's own cost."""

    def __init__(self, inner: Drafter, rightness: float) -> None:
        self._inner, self._rightness = inner, rightness
        self._rng = np.random.default_rng(0)
        self.answer: list[int] = []
        self.prompt_tokens = 0

    def follow(self, batch: Batch) -> None:
        self._inner.follow(batch)

    def catch_up(self, states: Sequence[SequenceState]) -> None:
        self._inner.catch_up(states)

    def draft(self, requests: Sequence[DraftRequest]) -> list[list[int]]:
        (drafts,), (request,) = self._inner.draft(requests), requests
        known = request.state.length + 1 - self.prompt_tokens
        return [
            [
                truth if self._rng.random() < self._rightness else own
                for own, truth in zip(drafts, self.answer[known:], strict=False)
            ]
        ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", metavar="PACK", type=Path, help="with an MTP layer")
    parser.add_argument("--memory", type=int, default=4 * 10**9, metavar="BYTES")
    parser.add_argument("--slots", type=int, metavar="N", help="experts in RAM (default: all that fit)")
    parser.add_argument("--depth", type=int, default=1, metavar="D", help="drafts at a time (default: 1)")
    parser.add_argument("--tokens", type=int, default=64, metavar="N", help="most tokens of an answer (default: 64)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--prompt", nargs="+", default=PROMPTS, metavar="TEXT")
    parser.add_argument("--auto", action="store_true", help="let the cost gate decide, pass by pass")
    parser.add_argument("--right", type=float, metavar="P", help="drafts are right with this probability")
    args = parser.parse_args(argv)
    options = EngineOptions(
        args.memory,
        CONTEXT_TOKENS,
        args.threads,
        max_sequences=1,
        expert_slots=args.slots,
        speculate="off",
    )
    how: Speculate = "auto" if args.auto else "always"
    prompts = encoded(Pack.open(args.pack), args.prompt)
    with (
        closing(Engine.load(args.pack, options)) as plain,
        closing(Engine.load(args.pack, replace(options, speculate=how, draft_tokens=args.depth))) as drafting,
    ):
        if drafting.config.num_mtp_layers == 0:
            sys.exit(f"{args.pack} has no MTP layer")
        told = tell(drafting, args.right, args.depth)
        rounds = [one_round(plain, drafting, prompts, args, told) for _ in range(1 + args.rounds)][1:]
    report(rounds)
    return 0


def encoded(pack: Pack, texts: Sequence[str]) -> list[list[int]]:
    if pack.tokenizer_dir is None:
        rng = np.random.default_rng(1)
        return [rng.integers(0, pack.config.vocab_size, PROMPT_TOKENS).tolist() for _ in texts]
    encoder = PromptEncoder(Tokenizer.from_dir(pack.tokenizer_dir), pack.config.vocab_size, CONTEXT_TOKENS)
    return [encoder.chat([ChatMessage("user", text)]) for text in texts]


def tell(engine: Engine, rightness: float | None, depth: int) -> ToldRight | None:
    """Have the engine's drafts corrected. None: they stay its own."""
    speculation = engine._requests._speculation
    if rightness is None or speculation is None:
        return None
    told = ToldRight(speculation._drafter, rightness)
    engine._requests._speculation = Speculation(told, AlwaysOpen(), depth)
    return told


def one_round(
    plain: Engine, drafting: Engine, prompts: list[list[int]], args: argparse.Namespace, told: ToldRight | None
) -> Round:
    result = Round()
    for number, ids in enumerate(prompts):
        sampling = SamplingParams(max_tokens=args.tokens, temperature=args.temperature, seed=number)
        answer = result.plain.generate(plain, ids, sampling)
        if told:
            told.answer, told.prompt_tokens = answer, len(ids)
        if result.drafted.generate(drafting, ids, sampling) != answer:
            sys.exit("drafting changed an answer")
    return result


def report(rounds: list[Round]) -> None:
    def spread(values: list[float]) -> str:
        return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"

    tokens = sum(stats.completion_tokens for stats in rounds[0].plain.stats)
    print(f"{len(rounds)} rounds of {len(rounds[0].plain.stats)} answers, {tokens} tokens, the same with drafts")
    print(f"without drafts       {spread([r.plain.decoded_tokens / r.plain.seconds for r in rounds])} tokens/s")
    print(f"drafts right         {spread([r.acceptance for r in rounds])}")
    print(f"tokens per pass      {spread([r.tokens_per_pass for r in rounds])}")
    print(f"a pass takes         {spread([r.tokens_per_pass / r.speed_up for r in rounds])} times as long")
    print(f"speed-up             {spread([r.speed_up for r in rounds])}")
    print(f"of processor time    {spread([r.cpu_speed_up for r in rounds])}")
    if all(r.plain.read_bytes for r in rounds):
        shares = [r.drafted.read_bytes / r.plain.read_bytes for r in rounds]
        print(f"read from disk       {spread(shares)} times as much")


if __name__ == "__main__":
    sys.exit(main())
