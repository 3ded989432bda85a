"""Chats of different lengths side by side in one row of tokens: nothing is padded but where a rectangle is needed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

# Few shapes of rectangles: oneDNN makes a kernel for each new one, which takes longer than to run it.
LENGTHS = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
TOKENS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class Chats:
    """Where each chat stands among N tokens.

    starts int64[B + 1]: the last is N. positions int64[N]: each token's in its chat. rectangles: chats of like length,
    int64[b, t] of which token stands there; behind a chat's end, where no layer looks ahead to, and in rows too many
    stands any. back int64[N]: where each token stands in the flattened rectangles.
    """

    starts: torch.Tensor
    positions: torch.Tensor
    rectangles: tuple[torch.Tensor, ...]
    back: torch.Tensor

    @classmethod
    def of(cls, lengths: Sequence[int]) -> "Chats":
        """Chats of these lengths one after another. In order of length they fill their rectangles best."""
        ends = torch.tensor(lengths).cumsum(0)
        starts = torch.cat((torch.zeros(1, dtype=torch.long), ends))
        positions = torch.cat([torch.arange(length) for length in lengths])
        rectangles = []
        back = torch.empty(int(ends[-1]), dtype=torch.long)
        offset = 0
        for first, last, length in _groups(lengths):
            places = starts[first:last, None] + torch.arange(length)
            is_inside = places < ends[first:last, None]
            back[places[is_inside]] = offset + torch.arange(places.numel())[is_inside.flatten()]
            rectangle = torch.zeros(max(1, TOKENS_AT_ONCE // length), length, dtype=torch.long)
            rectangle[: last - first] = torch.where(is_inside, places, 0)
            rectangles.append(rectangle)
            offset += rectangle.numel()
        return cls(starts, positions, tuple(rectangles), back)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def cut(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """[b, t, ...] for each rectangle from [N, ...]."""
        for rectangle in self.rectangles:
            yield x.index_select(0, rectangle.flatten()).view(*rectangle.shape, *x.shape[1:])

    def join(self, parts: Iterable[torch.Tensor]) -> torch.Tensor:
        """[N, ...] from [b, t, ...] of each rectangle."""
        return torch.cat([part.flatten(0, 1) for part in parts]).index_select(0, self.back)


def _groups(lengths: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Chats `first` to `last` go into a rectangle of `length`."""
    first = 0
    for i, _ in enumerate(lengths):
        own, following = _padded(max(lengths[first : i + 1])), _padded(max(lengths[first : i + 2]))
        if i + 1 == len(lengths) or (i + 2 - first) * following > TOKENS_AT_ONCE:
            yield first, i + 1, own
            first = i + 1


def _padded(length: int) -> int:
    """Raises: ValueError if it is longer than all."""
    for padded in LENGTHS:
        if length <= padded:
            return padded
    raise ValueError(f"a chat of {length} tokens; at most {LENGTHS[-1]} can be trained on")
