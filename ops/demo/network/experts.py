"""The mixture of experts: tokens sorted by expert, then a product for each expert."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.nn import functional

# oneDNN makes a kernel for each new number of rows, which takes longer than to run it: so few numbers, each seen again.
ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Places:
    """A row for each choice, those of an expert together, padded to a multiple of ROWS_AT_ONCE.

    token int64[rows]: whose input a row holds, for padding token 0's. row int64[T, K]: each choice's. ends int32[E]:
    where an expert's rows end.
    """

    token: torch.Tensor
    row: torch.Tensor
    ends: torch.Tensor

    @classmethod
    def of(cls, chosen: torch.Tensor, num_experts: int) -> "Places":
        """Of chosen experts [T, K]."""
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        counts = torch.bincount(flat, minlength=num_experts)
        padded = (counts + ROWS_AT_ONCE - 1) // ROWS_AT_ONCE * ROWS_AT_ONCE
        ends = padded.cumsum(0)
        shift = ends - padded - (counts.cumsum(0) - counts)  # by how much padding moves an expert's rows
        place = torch.arange(len(flat), device=flat.device) + shift[flat[order]]
        token = torch.zeros(int(ends[-1]), dtype=torch.long, device=flat.device)
        token.index_copy_(0, place, order // chosen.shape[1])
        row = torch.empty_like(place).index_copy_(0, order, place)
        return cls(token, row.view_as(chosen), ends.to(torch.int32))

    def spread(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, ...] from the tokens' [T, ...]."""
        return x.index_select(0, self.token)

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """[T, ...]: the sums of each token's rows."""
        return functional.embedding_bag(self.row, rows, mode="sum")


class _Spread(torch.autograd.Function):
    """Its gradient by `gather`: torch would add rows one by one. Padding must have no gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, places: Places) -> torch.Tensor:
        ctx.places = places
        return places.spread(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.places.gather(gradients[0]), None


class _Gather(torch.autograd.Function):
    """Its gradient by `spread`: padding is given token 0's, so it must not pass any on."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, places: Places) -> torch.Tensor:
        ctx.places = places
        return places.gather(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.places.spread(gradients[0]), None


def grouped_experts(
    x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    """[T, H] from x [T, H], chosen experts and their weights [T, K], gate_up [E, 2D, H], down [E, H, D].

    A row's weight multiplies what goes into `down`: 0 for padding, which so changes nothing, forth or back.
    """
    places = Places.of(chosen, len(gate_up))
    inputs = cast(torch.Tensor, _Spread.apply(x, places))  # type: ignore[no-untyped-call]
    gate, up = functional.grouped_mm(inputs, gate_up.transpose(1, 2), offs=places.ends).chunk(2, dim=-1)
    row_weights = weights.new_zeros(len(places.token)).index_copy(0, places.row.flatten(), weights.flatten())
    hidden = functional.silu(gate) * up * row_weights.to(x.dtype)[:, None]
    outputs = functional.grouped_mm(hidden, down.transpose(1, 2), offs=places.ends)
    return cast(torch.Tensor, _Gather.apply(outputs, places))  # type: ignore[no-untyped-call]


def balance_loss(probabilities: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """1 where all experts are used alike, up to E where one is (Switch Transformer, arXiv 2101.03961, equation 4)."""
    num_experts = probabilities.shape[-1]
    share = torch.bincount(chosen.flatten(), minlength=num_experts) / chosen.numel()
    return num_experts * (share * probabilities.mean(0)).sum()
