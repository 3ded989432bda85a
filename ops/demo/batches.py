"""What one step of training reads: chats of similar length side by side, each in a row of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ops.demo.tasks import mixture
from ops.demo.text import Encoded, encode
from ops.demo.tokenizer import END_OF_TEXT_ID

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MULTIPLE = 16  # rows' lengths: the delta rule's chunk
DRAWN_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Batch:
    """ids int64[B, T], padded behind each chat; is_target bool[B, T]: of these tokens the loss is taken.

    Padding stands behind all that counts, and no layer looks ahead: it changes nothing.
    """

    ids: NDArray[np.int64]
    is_target: NDArray[np.bool_]


def step_batches(
    tokenizer: "Tokenizer", seed: int, step: int, *, tokens: int, tokens_at_once: int, prompt_share: float
) -> list[Batch]:
    """The batches of one step: at least `tokens` ids of chats, in batches of about `tokens_at_once` with padding.

    prompt_share: of the prompts' tokens, how many are targets too: drawn anew each time, which weighs them so and
    saves their part of the head's work. The same arguments give the same batches.
    """
    chats = list(_chats(tokenizer, f"{seed} step {step}", tokens))
    rng = np.random.default_rng([seed, step])
    groups = list(_of_like_length(chats, tokens_at_once))
    return [_batch(groups[i], rng, prompt_share) for i in rng.permutation(len(groups))]


def _chats(tokenizer: "Tokenizer", seed: str, tokens: int) -> Iterator[Encoded]:
    source = mixture(seed)
    count = 0
    while count < tokens:
        for chat in encode(tokenizer, list(islice(source, DRAWN_AT_ONCE))):
            count += len(chat.ids)
            yield chat


def _of_like_length(chats: Sequence[Encoded], tokens_at_once: int) -> Iterator[list[Encoded]]:
    group: list[Encoded] = []
    for chat in sorted(chats, key=lambda chat: len(chat.ids)):
        if group and (len(group) + 1) * _padded(len(chat.ids)) > tokens_at_once:
            yield group
            group = []
        group.append(chat)
    yield group


def _padded(length: int) -> int:
    return -(-length // MULTIPLE) * MULTIPLE


def _batch(chats: Sequence[Encoded], rng: np.random.Generator, prompt_share: float) -> Batch:
    length = _padded(max(len(chat.ids) for chat in chats))
    ids = np.full((len(chats), length), END_OF_TEXT_ID, np.int64)
    is_target = np.zeros((len(chats), length), np.bool_)
    for row, chat in enumerate(chats):
        ids[row, : len(chat.ids)] = chat.ids
        drawn = rng.random(len(chat.ids)) < prompt_share
        is_target[row, : len(chat.ids)] = np.asarray(chat.is_answer) | drawn
    is_target[:, 0] = False  # nothing comes before it
    return Batch(ids, is_target)
