"""What a bench runs: prompts of random ids, and how long."""

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.errors import RequestError

# A sequence may be done with its prompt a few passes before the others, and decodes while it waits for them.
WAITING_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Workload:
    """`sequences` prompts of `prompt_tokens` random ids each, then `tokens` more tokens of each.

    Before that, unless `warmup` is 0, the same once with other ids and `warmup` tokens, which is not measured.
    """

    prompt_tokens: int = 64
    tokens: int = 32
    warmup: int = 8
    sequences: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("prompt_tokens", 1), ("tokens", 1), ("warmup", 0), ("sequences", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise RequestError(f"{name} is {getattr(self, name)}: it must be at least {least}")

    @property
    def sequence_tokens(self) -> int:
        """The most that one sequence comes to hold."""
        return self.prompt_tokens + max(self.warmup, self.tokens) + WAITING_TOKENS

    def prompts(self, vocab_size: int, num: int) -> list[list[int]]:
        """Round `num` of prompts: the same seed gives the same ids, each round and sequence others."""
        ids = random.Random(f"{self.seed} {num}")  # noqa: S311 no secret
        return [[ids.randrange(vocab_size) for _ in range(self.prompt_tokens)] for _ in range(self.sequences)]


@dataclass(frozen=True, slots=True)
class RandomIds:
    """Completions of random ids, whatever the logits say; no id of theirs ends one.

    The choice of random weights runs in circles, whose few experts would stay in the cache, and a real model's answer
    to noise may end at once. llama.cpp's bench feeds random ids, too.
    """

    max_tokens: int
    vocab_size: int
    end_ids: frozenset[int]
    seed: int

    def sampler(self) -> "RandomDraw":
        """A new one for a new completion: the same seed draws the same ids."""
        return RandomDraw(self)


class RandomDraw:
    """Made by `RandomIds.sampler`."""

    def __init__(self, ids: RandomIds) -> None:
        self._ids = ids
        self._random = random.Random(ids.seed)  # noqa: S311 no secret

    def draw(self, logits: NDArray[np.float32]) -> int:
        """A random id, after the same look at the logits as a greedy choice takes."""
        np.argmax(logits)
        while (token := self._random.randrange(self._ids.vocab_size)) in self._ids.end_ids:
            pass
        return token
