"""One variant measured: its scores over all passages, then its answers to all questions."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from edge.budget import resident_bytes
from edge.checkpoint.pack import Pack
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.engine_parts import planned
from edge.errors import BudgetError
from edge.evaluation.answering import greedy_answers
from edge.evaluation.material import Material
from edge.evaluation.measured import Answer, Measured
from edge.evaluation.scoring import PassageScore, Scorer
from edge.evaluation.variants import Variant
from edge.tokenizer import Tokenizer

# 32 at once took 0.83 of the CPU time of 8, 64 as much as 32 (demo model of 18 MB, 180 questions, one thread).
MANY_SEQUENCES = 32

Advance = Callable[[], object]  # is called after each passage and each answer


@dataclass(frozen=True, slots=True)
class Machine:
    """What the process may use."""

    memory_bytes: int
    threads: int


def measure(
    variant: Variant, pack: Pack, material: Material, machine: Machine, reference: Engine | None, advance: Advance
) -> Measured:
    """Everything about `variant`, whose pack is `pack`, in the memory that `reference` leaves.

    Raises BudgetError, StorageError, PackError, RequestError.
    """
    began = time.monotonic()
    with loaded(pack.path, _options(variant, pack, material, machine, reference)) as engine:
        scorer = Scorer(engine, reference, as_decoded=variant.substitute is not None)
        scores = tuple(_each(scorer, material, advance))
        answers = _answers(engine, pack, material, advance)
        return Measured(
            name=pack.name,
            bits=pack.manifest.contents.bits,
            is_calibrated=pack.manifest.calibration is not None,
            nbytes=pack.manifest.contents.nbytes,
            slots=engine.plan.num_slots,
            own_experts=_own_experts(engine),
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


def _own_experts(engine: Engine) -> float | None:
    deviation = engine.deviation
    if deviation is None or deviation.substitute is None:
        return None
    return engine.stats().routing.agreement(deviation.experts)


def _still_to_come(engine: Engine) -> int:
    """Bytes that an engine was promised and has not touched yet."""
    return max(0, engine.plan.total_bytes - resident_bytes())


def _options(
    variant: Variant, pack: Pack, material: Material, machine: Machine, reference: Engine | None
) -> EngineOptions:
    alone = EngineOptions(
        memory_bytes=max(1, machine.memory_bytes - (_still_to_come(reference) if reference else 0)),
        context_tokens=material.context_tokens,
        threads=machine.threads,
        max_sequences=1,
        expert_slots=variant.slots,
        prefetch=variant.substitute is None,  # which guesses were in time would decide what stands in: never the same
        experts_per_token=variant.experts_per_token,
        substitute=variant.substitute,
        speculate="always" if variant.speculates else "off",
    )
    # What stands in for an expert depends on which are there, and so on who else is: it is measured alone.
    return alone if variant.substitute else _side_by_side(pack, alone)


def _side_by_side(pack: Pack, alone: EngineOptions) -> EngineOptions:
    """With many sequences at once, unless weights would leave RAM for them: then as many as the planner likes."""
    usual = replace(alone, max_sequences=None)
    plan = planned(pack, usual)
    with suppress(BudgetError):
        many = replace(alone, max_sequences=MANY_SEQUENCES)
        crowded = planned(pack, many)
        if (crowded.num_slots, crowded.streamed_layers) == (plan.num_slots, plan.streamed_layers):
            return many
    return usual
