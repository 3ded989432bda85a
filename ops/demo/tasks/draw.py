"""Seeded choice, and the split: which values training may see and which are kept for the examination."""

import enum
import hashlib
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
HELD_OUT_PARTS = 10  # one in so many
KNOWN = "known "


class Side(enum.Enum):
    """Of the split. A value's side is decided by the value alone, so no seed can move it over."""

    TRAIN = "train"
    HELD_OUT = "held-out"


def side_of(key: str) -> Side:
    """The same on every machine. A key that starts with `known` is of the train side: 7 × 8 cannot be worked out."""
    if key.startswith(KNOWN):
        return Side.TRAIN
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return Side.HELD_OUT if int.from_bytes(digest, "big") % HELD_OUT_PARTS == 0 else Side.TRAIN


class Draw:
    """Random choices for one dialogue: the same seed and side make the same dialogue."""

    def __init__(self, seed: str, side: Side) -> None:
        self.side = side
        self._random = random.Random(f"{side.value} {seed}")  # noqa: S311 -- for data, not for secrets

    def number(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return self._random.randint(low, high)

    def one(self, values: Sequence[T]) -> T:
        """Any of them."""
        return self._random.choice(values)

    def weighted(self, values: Sequence[T], weights: Sequence[float]) -> T:
        """Any of them, as often as its weight says."""
        return self._random.choices(values, weights)[0]

    def some(self, values: Sequence[T], count: int) -> list[T]:
        """`count` different ones in any order."""
        return self._random.sample(values, count)

    def shuffled(self, values: Sequence[T]) -> list[T]:
        """All in any order."""
        return self.some(values, len(values))

    def chance(self, probability: float) -> bool:
        """True so often."""
        return self._random.random() < probability

    def is_mine(self, key: str) -> bool:
        """Whether the key is on this draw's side."""
        return side_of(key) is self.side

    def on_side(self, make: Callable[[], tuple[str, T]]) -> tuple[str, T]:
        """Calls `make`, which gives a key and what it stands for, until the key is on this draw's side."""
        while (found := self.maybe_on_side(make)) is None:
            pass
        return found

    def maybe_on_side(self, make: Callable[[], tuple[str, T]]) -> tuple[str, T] | None:
        """The same where there may be no such key: None after a hundred calls."""
        for _ in range(100):
            key, value = make()
            if self.is_mine(key):
                return key, value
        return None
