"""The mixture of experts: tokens sorted by expert, then one batched matrix product for all experts."""

import torch
from torch.nn import functional


def grouped_experts(
    x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    """[T, H] from x [T, H], chosen experts and their weights [T, K], gate_up [E, 2D, H], down [E, H, D].

    Every expert's tokens are padded to the busiest one's: nothing is dropped, so a balanced router is a fast one.
    """
    num_tokens, top_k = chosen.shape
    num_experts = gate_up.shape[0]
    flat = chosen.flatten()
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=num_experts)
    capacity = int(counts.max())
    starts = counts.cumsum(0) - counts
    expert = flat[order]
    place = expert * capacity + torch.arange(len(flat), device=x.device) - starts[expert]
    token = order // top_k

    rows = torch.zeros(num_experts * capacity, dtype=torch.long, device=x.device).index_copy(0, place, token)
    inputs = x.index_select(0, rows).view(num_experts, capacity, -1)
    gate, up = torch.bmm(inputs, gate_up.transpose(1, 2)).chunk(2, dim=-1)
    outputs = torch.bmm(functional.silu(gate) * up, down.transpose(1, 2)).flatten(0, 1)
    where = torch.empty_like(place).index_copy(0, order, place)  # [T * K]: each choice's row
    taken = outputs.index_select(0, where).view(num_tokens, top_k, -1)
    return torch.bmm(weights[:, None].to(taken.dtype), taken).squeeze(1)


def balance_loss(probabilities: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """1 where all experts are used alike, up to E where one is (Switch Transformer, arXiv 2101.03961, equation 4)."""
    num_experts = probabilities.shape[-1]
    share = torch.bincount(chosen.flatten(), minlength=num_experts) / chosen.numel()
    return num_experts * (share * probabilities.mean(0)).sum()
