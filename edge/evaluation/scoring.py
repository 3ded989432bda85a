"""How surely a model expects given tokens, and how far its expectations are from a reference's.

Both models run side by side, some positions at a time: the logits of all positions never exist at once.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.engine import Engine
from edge.errors import PackError
from edge.evaluation.passages import Passage

# Logits taken to double precision at a time, 2 MB of them: little beside the arrays that the plan counts.
VALUES_AT_ONCE = 2**18

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PassageScore:
    """Sums over the scored tokens of one passage. The last two are 0 without a reference.

    nll: minus the natural logarithm of the probability that the model gives the token. Nats.
    kl: the Kullback-Leibler divergence KL(reference || model) = sum of p (log p - log q) over the vocabulary, where p
    is the reference's distribution of the token and q the model's, both at temperature 1. Nats.
    same: tokens that are the likeliest of both, the lowest id among equals.
    """

    num_tokens: int
    nll: float
    kl: float
    same: int


class Scorer:
    """Scores passages with `engine`, against `reference` if there is one: of the same vocabulary.

    `digest` is, after any number of passages, the same for two engines if and only if all logits of scored tokens were
    byte for byte the same.

    `as_decoded`: compute scored tokens one by one, as an answer is: in a prompt nothing stands in for an expert.
    """

    def __init__(self, engine: Engine, reference: Engine | None, *, as_decoded: bool = False) -> None:
        self._engine, self._reference, self._as_decoded = engine, reference, as_decoded
        self._hash = hashlib.blake2b(digest_size=16)

    @property
    def digest(self) -> str:
        """Of all logits seen so far."""
        return self._hash.hexdigest()

    def score(self, passage: Passage) -> PassageScore:
        """Raises PackError for logits that are no numbers, StorageError."""
        tokens = np.array(passage.ids[passage.first :])
        nll = kl = 0.0
        same = begin = 0
        for logits, others in self._pairs(passage):
            end = begin + len(logits)
            some_nll, some_kl, some_same = compare(logits, others, tokens[begin:end])
            nll, kl, same, begin = nll + some_nll, kl + some_kl, same + some_same, end
        return PassageScore(len(tokens), nll, kl, same)

    def _pairs(self, passage: Passage) -> Iterator[tuple[Logits, Logits | None]]:
        ids, first = passage.ids[:-1], passage.first - 1
        num_prompt = passage.first if self._as_decoded else len(ids)
        ours = self._pieces(self._engine.logits_blocks(ids, prompt_tokens=min(num_prompt, len(ids)), first=first))
        if self._reference is None:
            return ((piece, None) for piece in ours)
        return aligned(ours, self._reference.logits_blocks(ids, first=first))

    def _pieces(self, blocks: Iterator[Logits]) -> Iterator[Logits]:
        rows = max(1, VALUES_AT_ONCE // self._engine.config.vocab_size)
        for block in blocks:
            self._hash.update(np.ascontiguousarray(block).data)
            yield from (block[start : start + rows] for start in range(0, len(block), rows))


def aligned(ours: Iterator[Logits], theirs: Iterator[Logits]) -> Iterator[tuple[Logits, Logits]]:
    """The rows of two streams of as many rows, cut in different places: pairs of blocks of the same rows."""
    other = next(theirs)
    for block in ours:
        begin = 0
        while begin < len(block):
            count = min(len(block) - begin, len(other))
            yield block[begin : begin + count], other[:count]
            begin, other = begin + count, other[count:]
            if not len(other):
                other = next(theirs, other)


def compare(logits: Logits, others: Logits | None, tokens: NDArray[np.integer]) -> tuple[float, float, int]:
    """nll, kl and same, as PassageScore has them, of f32[n, vocab] before `tokens` [n]; `others` are the reference's.

    Raises PackError.
    """
    q = log_probabilities(logits)
    nll = -float(q[np.arange(len(tokens)), tokens].sum())
    if others is None:
        return nll, 0.0, 0
    p = log_probabilities(others)
    kl = float((np.exp(p) * (p - q)).sum())
    return nll, kl, int(np.count_nonzero(logits.argmax(axis=1) == others.argmax(axis=1)))


def log_probabilities(logits: Logits) -> NDArray[np.float64]:
    """The logarithm of the softmax of each row, in double precision. Raises PackError for what is no number."""
    if not np.isfinite(logits).all():
        raise PackError("the logits are not finite: these weights cannot be measured")
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return wide
