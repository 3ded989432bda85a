"""What a pass brings a sequence: its next token, and one more for each guess that turns out to have been right."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.config import ModelConfig
from edge.errors import PackError
from edge.sequence import Sequence


@dataclass(slots=True)
class Outcome:
    """Tokens, and what befell the sequence after them; its `stats.finish_reason` says whether it has ended."""

    sequence: Sequence
    tokens: list[int] = field(default_factory=list)
    error: PackError | None = None


def drawn(sequence: Sequence, rows: NDArray[np.float32], config: ModelConfig) -> Outcome:
    """Draw from logits f32[1 + guesses, vocab], as long as the token drawn is the one that the next row was guessed on.

    The first row's token is drawn as ever, so each row that is used is what the pass after it would have computed.
    """
    outcome = Outcome(sequence)
    for logits in rows:
        if outcome.tokens and not sequence.accepts(outcome.tokens[-1]):
            break
        if not math.isfinite(logits.max()):  # NaN carries through to the maximum
            outcome.error = PackError("the logits are not finite: no text can be drawn from these weights")
            break
        token = sequence.draw(logits, config)
        if token is not None:
            outcome.tokens.append(token)
        if sequence.stats.finish_reason:
            break
    return outcome
