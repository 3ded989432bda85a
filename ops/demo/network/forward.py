"""The forward pass over transformers' modules, matrix products in bfloat16 where autocast says so."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional

from ops.demo.network.delta_rule import convolve, delta_rule, unit
from ops.demo.network.experts import balance_loss, grouped_experts

if TYPE_CHECKING:
    from transformers import Qwen3_5MoeTextConfig
    from transformers.models.qwen3_5_moe import modeling_qwen3_5_moe as hf


@dataclass(frozen=True, slots=True)
class Rotation:
    """cos and sin [T, rotary_dim]."""

    cos: torch.Tensor
    sin: torch.Tensor


def rotation(length: int, rotary_dim: int, theta: float) -> Rotation:
    """Of positions 0 to `length` - 1."""
    frequencies = theta ** -(torch.arange(0, rotary_dim, 2) / rotary_dim)
    angles = torch.arange(length)[:, None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return Rotation(angles.cos(), angles.sin())


def rms_norm(x: torch.Tensor, module: "hf.Qwen3_5MoeRMSNorm") -> torch.Tensor:
    """transformers' norm, whose weight counts from 1."""
    return functional.rms_norm(x.float(), x.shape[-1:], 1 + module.weight, module.eps)


def decoder_layer(
    layer: "hf.Qwen3_5MoeDecoderLayer", x: torch.Tensor, rotated: Rotation
) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer's output [B, T, H] and its balance loss."""
    normed = rms_norm(x, layer.input_layernorm)
    if layer.block_type == "linear_attention":
        x = x + _deltanet(layer.linear_attn, normed)
    else:
        x = x + _attention(layer.self_attn, normed, rotated)
    mixed, balance = _mixture(layer.mlp, rms_norm(x, layer.post_attention_layernorm))
    return x + mixed, balance


def _deltanet(module: "hf.Qwen3_5MoeGatedDeltaNet", x: torch.Tensor) -> torch.Tensor:
    batch, length, _ = x.shape
    key_dim, value_dim, heads = module.key_dim, module.value_dim, module.num_v_heads
    weight = torch.cat(
        (module.in_proj_qkv.weight, module.in_proj_z.weight, module.in_proj_b.weight, module.in_proj_a.weight)
    )
    qkv, z, b, a = functional.linear(x, weight).split_with_sizes(
        (2 * key_dim + value_dim, value_dim, heads, heads), dim=-1
    )
    with torch.autocast("cpu", enabled=False):  # a recurrence: its errors would add up along the sequence
        out = _recurrence(module, qkv.float(), b.float(), a.float())
        out = functional.rms_norm(out, out.shape[-1:], module.norm.weight, module.norm.variance_epsilon)
    gated = out.transpose(1, 2).reshape(batch, length, value_dim) * functional.silu(z.float())
    return functional.linear(gated, module.out_proj.weight)


def _recurrence(
    module: "hf.Qwen3_5MoeGatedDeltaNet", qkv: torch.Tensor, b: torch.Tensor, a: torch.Tensor
) -> torch.Tensor:
    """f32[B, value heads, T, V]."""
    batch, length, _ = qkv.shape
    served = module.num_v_heads // module.num_k_heads

    def by_head(part: torch.Tensor, width: int) -> torch.Tensor:
        return part.reshape(batch, length, -1, width).transpose(1, 2)

    qkv = convolve(qkv, module.conv1d.weight.squeeze(1))
    query, key, value = qkv.split_with_sizes((module.key_dim, module.key_dim, module.value_dim), dim=-1)
    query = unit(by_head(query, module.head_k_dim)) * module.head_k_dim**-0.5
    key = unit(by_head(key, module.head_k_dim))
    decay = -module.A_log.exp() * functional.softplus(a + module.dt_bias)
    return delta_rule(
        query.repeat_interleave(served, dim=1),
        key.repeat_interleave(served, dim=1),
        by_head(value, module.head_v_dim),
        decay.transpose(1, 2),
        b.sigmoid().transpose(1, 2),
    )


def _attention(module: "hf.Qwen3_5MoeAttention", x: torch.Tensor, rotated: Rotation) -> torch.Tensor:
    batch, length, _ = x.shape
    queried, keyed = module.q_proj.weight.shape[0], module.k_proj.weight.shape[0]
    weight = torch.cat((module.q_proj.weight, module.k_proj.weight, module.v_proj.weight))
    query, key, value = functional.linear(x, weight).split_with_sizes((queried, keyed, keyed), dim=-1)
    query, gate = query.reshape(batch, length, -1, 2 * module.head_dim).chunk(2, dim=-1)
    query = _rotate(rms_norm(query, module.q_norm).transpose(1, 2), rotated)
    key = _rotate(rms_norm(key.reshape(batch, length, -1, module.head_dim), module.k_norm).transpose(1, 2), rotated)
    value = value.reshape(batch, length, -1, module.head_dim).transpose(1, 2)
    out = functional.scaled_dot_product_attention(
        query.to(value.dtype), key.to(value.dtype), value, is_causal=True, enable_gqa=True
    )
    out = out.transpose(1, 2).reshape(batch, length, -1) * gate.reshape(batch, length, -1).sigmoid()
    return functional.linear(out, module.o_proj.weight)


def _rotate(x: torch.Tensor, rotated: Rotation) -> torch.Tensor:
    turned, kept = x.split_with_sizes((rotated.cos.shape[-1], x.shape[-1] - rotated.cos.shape[-1]), dim=-1)
    first, second = turned.chunk(2, dim=-1)
    turned = turned * rotated.cos + torch.cat((-second, first), dim=-1) * rotated.sin
    return torch.cat((turned, kept), dim=-1)


def _mixture(module: "hf.Qwen3_5MoeSparseMoeBlock", x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    flat = x.flatten(0, 1)
    with torch.autocast("cpu", enabled=False):  # which expert runs is decided in full precision, as in the engine
        probabilities = functional.linear(flat, module.gate.weight).softmax(-1)
    weights, chosen = probabilities.topk(module.gate.top_k, dim=-1)
    weights = weights / weights.sum(-1, keepdim=True)
    low = flat.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else flat
    routed = grouped_experts(
        low, chosen, weights, module.experts.gate_up_proj.to(low.dtype), module.experts.down_proj.to(low.dtype)
    )
    shared = _mlp(module.shared_expert, low) * functional.linear(flat, module.shared_expert_gate.weight).sigmoid()
    return (routed + shared).view_as(x), balance_loss(probabilities, chosen)


def _mlp(module: "hf.Qwen3_5MoeMLP", x: torch.Tensor) -> torch.Tensor:
    weight = torch.cat((module.gate_proj.weight, module.up_proj.weight))
    gate, up = functional.linear(x, weight).chunk(2, dim=-1)
    return functional.linear(functional.silu(gate) * up, module.down_proj.weight)


class MtpPart(nn.Module):
    """The multi-token-prediction layer, with the tensors' names of the released checkpoints below `mtp.`.

    From the hidden state that says token t + 1 and that token itself it says token t + 2, through the same head.
    """

    def __init__(self, config: "Qwen3_5MoeTextConfig") -> None:
        from transformers.models.qwen3_5_moe import modeling_qwen3_5_moe as modeling

        super().__init__()
        size, eps = config.hidden_size, config.rms_norm_eps
        self.pre_fc_norm_embedding = modeling.Qwen3_5MoeRMSNorm(size, eps)
        self.pre_fc_norm_hidden = modeling.Qwen3_5MoeRMSNorm(size, eps)
        self.fc = nn.Linear(2 * size, size, bias=False)
        self.layers = nn.ModuleList(
            [modeling.Qwen3_5MoeDecoderLayer(config, cast("list[str]", config.layer_types).index("full_attention"))]
        )
        self.norm = modeling.Qwen3_5MoeRMSNorm(size, eps)

    def forward(
        self, embedded: torch.Tensor, hidden: torch.Tensor, rotated: Rotation
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states for the shared head [B, T, H] and the balance loss.

        embedded: of the tokens after those that `hidden`, the trunk's states after its last norm, was read at.
        """
        embedded = rms_norm(embedded, self.pre_fc_norm_embedding)
        x = self.fc(torch.cat((embedded, rms_norm(hidden, self.pre_fc_norm_hidden)), dim=-1)).float()
        x, balance = decoder_layer(cast("hf.Qwen3_5MoeDecoderLayer", self.layers[0]), x, rotated)
        return rms_norm(x, self.norm), balance
