"""One variant measured: its scores over all passages, then its answers to all questions."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from edge.budget import resident_bytes, state_bytes
from edge.checkpoint.pack import Pack
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.evaluation.answering import greedy_answers
from edge.evaluation.material import Material
from edge.evaluation.measured import Answer, Measured
from edge.evaluation.scoring import PassageScore, Scorer
from edge.evaluation.variants import Variant
from edge.tokenizer import Tokenizer

# More at once share each read of a weight among more rows; their states must be small beside the weights in RAM.
MANY_SEQUENCES = 32

Advance = Callable[[], object]  # is called after each passage and each answer


def measure(
    variant: Variant,
    pack: Pack,
    material: Material,
    reference: Engine | None,
    memory_bytes: int,
    threads: int,
    advance: Advance,
) -> Measured:
    """Everything about `variant`, whose pack is `pack`, within what `reference` leaves of `memory_bytes`.

    Raises BudgetError, StorageError, PackError, RequestError.
    """
    began = time.monotonic()
    free_bytes = memory_bytes - (_still_to_come(reference) if reference else 0)
    options = EngineOptions(
        memory_bytes=max(1, free_bytes),
        context_tokens=material.context_tokens,
        threads=threads,
        max_sequences=_many_sequences(pack, material, free_bytes),
        expert_slots=variant.slots,
    )
    with loaded(pack.path, options) as engine:
        scorer = Scorer(engine, reference)
        scores = tuple(_each(scorer, material, advance))
        answers = _answers(engine, pack, material, advance)
        return Measured(
            name=pack.name,
            bits=pack.manifest.contents.bits,
            nbytes=pack.manifest.contents.nbytes,
            slots=engine.plan.num_slots,
            seconds=time.monotonic() - began,
            answers=answers,
            scores=scores,
            logits_digest=scorer.digest,
        )


@contextmanager
def loaded(path: Path, options: EngineOptions) -> Iterator[Engine]:
    """An engine, whose memory is free again afterwards: the next one plans with it."""
    engine = Engine.load(path, options)
    with closing(engine):
        yield engine
    del engine
    gc.collect()


def _each(scorer: Scorer, material: Material, advance: Advance) -> Iterator[PassageScore]:
    for passage in material.passages:
        yield scorer.score(passage)
        advance()


def _answers(engine: Engine, pack: Pack, material: Material, advance: Advance) -> tuple[Answer, ...]:
    if pack.tokenizer_dir is None:
        return ()
    tokenizer = Tokenizer.from_dir(pack.tokenizer_dir)
    answers = greedy_answers(engine, material.prompts, material.max_tokens, tokenizer.eos_token_ids, advance)
    return tuple(Answer(tuple(ids), tokenizer.decode(ids)) for ids in answers)


def _still_to_come(engine: Engine) -> int:
    """Bytes that an engine was promised and has not touched yet."""
    return max(0, engine.plan.total_bytes - resident_bytes())


def _many_sequences(pack: Pack, material: Material, memory_bytes: int) -> int | None:
    states = state_bytes(pack.config, MANY_SEQUENCES, material.context_tokens)
    return MANY_SEQUENCES if 2 * (states + pack.manifest.contents.nbytes) < memory_bytes else None
