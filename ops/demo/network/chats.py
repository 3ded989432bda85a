"""Chats of different lengths side by side in one row of tokens: nothing is padded but where a rectangle is needed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

MULTIPLE = 16  # of the rectangles' lengths: the delta rule's chunk
TOKENS_AT_ONCE = 2048  # of a rectangle of several chats


@dataclass(frozen=True, slots=True)
class Chats:
    """Where each chat stands among N tokens.

    starts int64[B + 1]: the last is N. positions int64[N]: each token's in its chat. rectangles: chats of like length,
    int64[b, t] of which token stands there, behind a chat's end its last one again, which no layer looks ahead to.
    back int64[N]: where each token stands in the flattened rectangles.
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
        for first, last in _groups(lengths):
            width = _padded(max(lengths[first:last]))
            places = starts[first:last, None] + torch.arange(width)
            is_inside = places < ends[first:last, None]
            back[places[is_inside]] = offset + torch.arange(places.numel())[is_inside.flatten()]
            rectangles.append(torch.minimum(places, ends[first:last, None] - 1))
            offset += places.numel()
        return cls(starts, positions, tuple(rectangles), back)

    def cut(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """[b, t, ...] for each rectangle from [N, ...]."""
        for rectangle in self.rectangles:
            yield x.index_select(0, rectangle.flatten()).view(*rectangle.shape, *x.shape[1:])

    def join(self, parts: Iterable[torch.Tensor]) -> torch.Tensor:
        """[N, ...] from [b, t, ...] of each rectangle."""
        return torch.cat([part.flatten(0, 1) for part in parts]).index_select(0, self.back)


def _groups(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    first = 0
    for i in range(1, len(lengths) + 1):
        if i == len(lengths) or (i + 1 - first) * _padded(max(lengths[first : i + 1])) > TOKENS_AT_ONCE:
            yield first, i
            first = i


def _padded(length: int) -> int:
    return -(-length // MULTIPLE) * MULTIPLE
