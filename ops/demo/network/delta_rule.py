"""The gated delta rule over whole sequences, in chunks (Gated DeltaNet, arXiv 2412.06464, section 3.3).

S_t = exp(g_t) S_(t-1) (I - b_t k_t k_t') + b_t v_t k_t', o_t = S_t q_t; S_0 = 0.
"""

import torch
from torch.nn import functional

from ops.demo.network.inverse import unit_lower_inverse

CHUNK = 16


def delta_rule(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, decay: torch.Tensor, beta: torch.Tensor
) -> torch.Tensor:
    """f32[B, H, T, V] from query, key [B, H, T, K], value [B, H, T, V], decay (g, at most 0) and beta [B, H, T].

    Query and key come normalised; the query's scale 1 / sqrt(K) is applied by the caller. T is a multiple of CHUNK.
    """
    batch, heads, length, width = value.shape
    chunks = length // CHUNK

    def chunked(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(batch * heads, chunks, CHUNK, *x.shape[3:])

    query, key, value, decay, beta = map(chunked, (query, key, value, decay, beta))
    total = decay.cumsum(-1)  # [N, chunks, C]: log of the decay since the chunk began
    upper = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=value.device).triu(1)
    between = (total[..., :, None] - total[..., None, :]).masked_fill(upper, float("-inf")).exp()

    weighted = key * beta[..., None]
    lower = (weighted @ key.transpose(-1, -2) * between).tril(-1)
    inverse = unit_lower_inverse(lower.flatten(0, 1)).view_as(lower)
    new_values = inverse @ (value * beta[..., None])  # as if the state before the chunk were empty
    erased = inverse @ (weighted * total.exp()[..., None])  # what of that state they overwrite
    inside = query @ key.transpose(-1, -2) * between
    query = query * total.exp()[..., None]
    key = (key * (total[..., -1:] - total).exp()[..., None]).transpose(-1, -2)
    kept = total[..., -1].exp()[..., None, None]

    state = value.new_zeros(batch * heads, key.shape[-2], width)
    outputs = []
    for i in range(chunks):
        corrected = torch.baddbmm(new_values[:, i], erased[:, i], state, alpha=-1)
        outputs.append(torch.baddbmm(inside[:, i] @ corrected, query[:, i], state))
        state = torch.baddbmm(state * kept[:, i], key[:, i], corrected)
    return torch.cat(outputs, dim=1).view(batch, heads, length, width)


def unit(x: torch.Tensor) -> torch.Tensor:
    """`x` with its last dimension at length 1."""
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def convolve(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """SiLU of the causal depthwise convolution of [B, T, channels] with [channels, width]: shifted sums.

    torch's own wants the channels before the time, and the two transpositions cost more than the sums.
    """
    width = weight.shape[-1]
    padded = functional.pad(x, (0, 0, width - 1, 0))
    length = x.shape[1]
    mixed = padded[:, :length] * weight[:, 0]
    for tap in range(1, width):
        mixed = mixed + padded[:, tap : tap + length] * weight[:, tap]
    return functional.silu(mixed)
