"""What makes a DeltaNet layer slow in torch, from C++ where there is a compiler: convolution and delta rule."""

import ctypes
from dataclasses import dataclass
from typing import Any, cast

import torch

from ops.demo.network import delta_rule as in_torch
from ops.demo.network.chats import Chats
from ops.demo.network.native import addresses, counts, library


@dataclass(frozen=True, slots=True)
class Heads:
    """Of a layer: each key head serves num_values / num_keys value heads."""

    num_keys: int
    num_values: int
    key_dim: int
    value_dim: int

    @property
    def widths(self) -> tuple[int, int, int]:
        """Of queries, keys and values in one token's row."""
        keys = self.num_keys * self.key_dim
        return keys, keys, self.num_values * self.value_dim


def recurrence(
    mixed: torch.Tensor, decay: torch.Tensor, beta: torch.Tensor, heads: Heads, chats: Chats
) -> torch.Tensor:
    """f32[N, Hv, V] from the convolved queries, keys and values [N, sum(heads.widths)], decay and beta [N, Hv]."""
    native = library("delta_rule", key=heads.key_dim, value=heads.value_dim) if _is_for_native(mixed) else None
    if native is None or heads.key_dim % 4:
        parts = zip(chats.cut(mixed), chats.cut(decay), chats.cut(beta), strict=True)
        return chats.join(_in_torch(*part, heads) for part in parts)
    return cast(torch.Tensor, _DeltaRule.apply(mixed, decay, beta, heads, chats, native))  # type: ignore[no-untyped-call]


def convolve(x: torch.Tensor, weight: torch.Tensor, chats: Chats) -> torch.Tensor:
    """SiLU of each chat's causal depthwise convolution: of f32[N, channels] with [channels, width]."""
    native = library("convolution", taps=weight.shape[-1]) if _is_for_native(x) else None
    if native is None:
        return chats.join(in_torch.convolve(part, weight) for part in chats.cut(x))
    return cast(torch.Tensor, _Convolution.apply(x, weight.t(), chats, native))  # type: ignore[no-untyped-call]


def _is_for_native(x: torch.Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32


def _in_torch(mixed: torch.Tensor, decay: torch.Tensor, beta: torch.Tensor, heads: Heads) -> torch.Tensor:
    """[b, t, Hv, V] of one rectangle."""
    batch, length, _ = mixed.shape
    served = heads.num_values // heads.num_keys

    def by_head(part: torch.Tensor, width: int) -> torch.Tensor:
        return part.reshape(batch, length, -1, width).transpose(1, 2)

    query, key, value = mixed.split_with_sizes(heads.widths, dim=-1)
    query = in_torch.unit(by_head(query, heads.key_dim)) * heads.key_dim**-0.5
    key = in_torch.unit(by_head(key, heads.key_dim))
    out = in_torch.delta_rule(
        query.repeat_interleave(served, dim=1),
        key.repeat_interleave(served, dim=1),
        by_head(value, heads.value_dim),
        decay.transpose(1, 2),
        beta.transpose(1, 2),
    )
    return out.transpose(1, 2)


class _DeltaRule(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        mixed: torch.Tensor,
        decay: torch.Tensor,
        beta: torch.Tensor,
        heads: Heads,
        chats: Chats,
        native: ctypes.CDLL,
    ) -> torch.Tensor:
        mixed, decay, beta = mixed.contiguous(), decay.contiguous(), beta.contiguous()
        out = mixed.new_empty(len(mixed), heads.num_values, heads.value_dim)
        chunks = len(mixed) // in_torch.CHUNK + len(chats) + 1
        states = mixed.new_empty(chunks, heads.num_values, heads.key_dim, heads.value_dim)
        ctx.sizes = (*addresses(chats.starts), *counts(len(chats), heads.num_keys, heads.num_values))
        native.delta_rule_forward(*addresses(mixed, decay, beta, out, states), *ctx.sizes, torch.get_num_threads())
        ctx.save_for_backward(mixed, decay, beta, states)
        ctx.chats, ctx.native = chats, native
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        saved = ctx.saved_tensors
        of_inputs = tuple(torch.empty_like(tensor) for tensor in saved[:3])
        of_out = gradients[0].contiguous()
        pointers = addresses(*saved, of_out, *of_inputs)
        ctx.native.delta_rule_backward(*pointers, *ctx.sizes, torch.get_num_threads())
        return (*of_inputs, None, None, None)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, chats: Chats, native: ctypes.CDLL) -> torch.Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        out = torch.empty_like(x)
        ctx.sizes = (*addresses(chats.starts), *counts(len(chats), x.shape[1]))
        native.convolve_forward(*addresses(x, weight, out), *ctx.sizes, torch.get_num_threads())
        ctx.save_for_backward(x, weight)
        ctx.chats, ctx.native = chats, native
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight = torch.empty_like(x), weight.new_empty(len(ctx.chats), *weight.shape)
        of_out = gradients[0].contiguous()
        pointers = addresses(x, weight, of_out, of_x, of_weight)
        ctx.native.convolve_backward(*pointers, *ctx.sizes, torch.get_num_threads())
        return of_x, of_weight.sum(0), None, None
