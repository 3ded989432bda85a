"""What one step of training reads: chats one after another."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ops.demo.tasks import mixture
from ops.demo.text import Encoded, encode

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DRAWN_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """Chats one after another in order of length: lengths of all, ids int64[N], is_target bool[N].

    Of targets the loss is taken. A chat's first token is none: nothing comes before it.
    """

    lengths: tuple[int, ...]
    ids: NDArray[np.int64]
    is_target: NDArray[np.bool_]


def step_batch(tokenizer: "Tokenizer", seed: int, step: int, *, tokens: int, prompt_share: float) -> Batch:
    """What one step reads: chats of `tokens` ids, the last one cut off there. The same arguments give the same batch.

    prompt_share: of the prompts' tokens, how many are targets too: drawn anew each time, which weighs them so and
    saves their part of the head's work.
    """
    chats = sorted(_chats(tokenizer, f"{seed} step {step}", tokens), key=lambda chat: len(chat.ids))
    lengths = tuple(len(chat.ids) for chat in chats)
    ids = np.concatenate([chat.ids for chat in chats])
    drawn = np.random.default_rng([seed, step]).random(len(ids)) < prompt_share
    is_target = np.concatenate([chat.is_answer for chat in chats]) | drawn
    is_target[np.cumsum((0, *lengths[:-1]))] = False
    return Batch(lengths, ids, is_target)


def _chats(tokenizer: "Tokenizer", seed: str, tokens: int) -> Iterator[Encoded]:
    source = mixture(seed)
    count = 0
    while True:
        for chat in encode(tokenizer, list(islice(source, DRAWN_AT_ONCE))):
            left = tokens - count
            count += len(chat.ids)
            yield Encoded(chat.ids[:left], chat.is_answer[:left])
            if count >= tokens:
                return
