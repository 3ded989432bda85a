"""Causal attention of each chat to itself, from C++ where there is a compiler."""

import ctypes
from typing import Any, cast

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ops.demo.network.chats import Chats
from ops.demo.network.native import addresses, counts, library


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, chats: Chats) -> torch.Tensor:
    """f32[N, Hq, D] from query f32[N, Hq, D], key and value f32[N, Hk, D]; a key head serves Hq / Hk query heads."""
    native = library("attention", dim=query.shape[-1]) if query.device.type == "cpu" else None
    if native is None:
        parts = zip(chats.cut(query), chats.cut(key), chats.cut(value), strict=True)
        return chats.join(_in_torch(*part) for part in parts)
    return cast(torch.Tensor, _Attention.apply(query, key, value, chats, native))  # type: ignore[no-untyped-call]


def _in_torch(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """[b, t, heads, D] of one rectangle. By plain products: the way back of torch's fused kernel is slow on a CPU."""
    with sdpa_kernel(SDPBackend.MATH):
        out = functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), is_causal=True, enable_gqa=True
        )
    return out.transpose(1, 2)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, chats: Chats, native: ctypes.CDLL
    ) -> torch.Tensor:
        inputs = (query.contiguous(), key.contiguous(), value.contiguous())
        out, logsum = torch.empty_like(inputs[0]), query.new_empty(query.shape[:2])
        ctx.sizes = (*addresses(chats.starts), *counts(len(chats), query.shape[1], key.shape[1]))
        native.attention_forward(*addresses(*inputs, out, logsum), *ctx.sizes, torch.get_num_threads())
        ctx.save_for_backward(*inputs, out, logsum)
        ctx.chats, ctx.native = chats, native
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        saved = ctx.saved_tensors
        of_inputs = tuple(torch.empty_like(tensor) for tensor in saved[:3])
        of_out = gradients[0].contiguous()
        pointers = addresses(*saved, of_out, *of_inputs)
        ctx.native.attention_backward(*pointers, *ctx.sizes, torch.get_num_threads())
        return (*of_inputs, None, None)
