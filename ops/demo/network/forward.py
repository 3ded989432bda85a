"""The forward pass over transformers' modules, matrix products in bfloat16 where autocast says so."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional

from ops.demo.network.attention import attention
from ops.demo.network.chats import Chats
from ops.demo.network.experts import balance_loss, grouped_experts
from ops.demo.network.recurrence import Heads, convolve, recurrence

if TYPE_CHECKING:
    from transformers import Qwen3_5MoeTextConfig
    from transformers.models.qwen3_5_moe import modeling_qwen3_5_moe as hf


@dataclass(frozen=True, slots=True)
class Sequences:
    """The chats of a batch and their tokens' rotations: cos and sin [N, 1, rotary_dim]."""

    chats: Chats
    cos: torch.Tensor
    sin: torch.Tensor


def sequences(chats: Chats, rotary_dim: int, theta: float) -> Sequences:
    """Each chat's positions begin at 0."""
    frequencies = theta ** -(torch.arange(0, rotary_dim, 2) / rotary_dim)
    angles = chats.positions[:, None] * frequencies
    angles = torch.cat((angles, angles), dim=-1)[:, None]
    return Sequences(chats, angles.cos(), angles.sin())


def rms_norm(x: torch.Tensor, module: "hf.Qwen3_5MoeRMSNorm") -> torch.Tensor:
    """transformers' norm, whose weight counts from 1."""
    return functional.rms_norm(x.float(), x.shape[-1:], 1 + module.weight, module.eps)


def decoder_layer(
    layer: "hf.Qwen3_5MoeDecoderLayer", x: torch.Tensor, sequences: Sequences
) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer's output [N, H] and its balance loss."""
    normed = rms_norm(x, layer.input_layernorm)
    if layer.block_type == "linear_attention":
        x = x + _deltanet(layer.linear_attn, normed, sequences.chats)
    else:
        x = x + _attention(layer.self_attn, normed, sequences)
    mixed, balance = _mixture(layer.mlp, rms_norm(x, layer.post_attention_layernorm))
    return x + mixed, balance


def _deltanet(module: "hf.Qwen3_5MoeGatedDeltaNet", x: torch.Tensor, chats: Chats) -> torch.Tensor:
    key_dim, value_dim, heads = module.key_dim, module.value_dim, module.num_v_heads
    weight = torch.cat(
        (module.in_proj_qkv.weight, module.in_proj_z.weight, module.in_proj_b.weight, module.in_proj_a.weight)
    )
    qkv, z, b, a = functional.linear(x, weight).split_with_sizes(
        (2 * key_dim + value_dim, value_dim, heads, heads), dim=-1
    )
    with torch.autocast("cpu", enabled=False):  # a recurrence: its errors would add up along the sequence
        mixed = convolve(qkv.float(), module.conv1d.weight.squeeze(1), chats)
        decay = -module.A_log.exp() * functional.softplus(a.float() + module.dt_bias)
        out = recurrence(mixed, decay, b.float().sigmoid(), _heads(module), chats)
        out = functional.rms_norm(out, out.shape[-1:], module.norm.weight, module.norm.variance_epsilon)
    return functional.linear(out.flatten(1) * functional.silu(z.float()), module.out_proj.weight)


def _heads(module: "hf.Qwen3_5MoeGatedDeltaNet") -> Heads:
    return Heads(module.num_k_heads, module.num_v_heads, module.head_k_dim, module.head_v_dim)


def _attention(module: "hf.Qwen3_5MoeAttention", x: torch.Tensor, sequences: Sequences) -> torch.Tensor:
    queried, keyed = module.q_proj.weight.shape[0], module.k_proj.weight.shape[0]
    weight = torch.cat((module.q_proj.weight, module.k_proj.weight, module.v_proj.weight))
    query, key, value = functional.linear(x, weight).split_with_sizes((queried, keyed, keyed), dim=-1)
    query, gate = query.reshape(len(x), -1, 2 * module.head_dim).chunk(2, dim=-1)
    query = _rotate(rms_norm(query, module.q_norm), sequences)
    key = _rotate(rms_norm(key.reshape(len(x), -1, module.head_dim), module.k_norm), sequences)
    with torch.autocast("cpu", enabled=False):
        out = attention(query, key, value.float().reshape(len(x), -1, module.head_dim), sequences.chats)
    return functional.linear(out.flatten(1) * gate.flatten(1).sigmoid(), module.o_proj.weight)


def _rotate(x: torch.Tensor, sequences: Sequences) -> torch.Tensor:
    rotary_dim = sequences.cos.shape[-1]
    turned, kept = x.split_with_sizes((rotary_dim, x.shape[-1] - rotary_dim), dim=-1)
    first, second = turned.chunk(2, dim=-1)
    turned = turned * sequences.cos + torch.cat((-second, first), dim=-1) * sequences.sin
    return torch.cat((turned, kept), dim=-1)


def _mixture(module: "hf.Qwen3_5MoeSparseMoeBlock", x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.autocast("cpu", enabled=False):  # which expert runs is decided in full precision, as in the engine
        probabilities = functional.linear(x, module.gate.weight).softmax(-1)
    weights, chosen = probabilities.topk(module.gate.top_k, dim=-1)
    weights = weights / weights.sum(-1, keepdim=True)
    low = x.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else x
    routed = grouped_experts(
        low, chosen, weights, module.experts.gate_up_proj.to(low.dtype), module.experts.down_proj.to(low.dtype)
    )
    shared = _mlp(module.shared_expert, low) * functional.linear(low, module.shared_expert_gate.weight).sigmoid()
    return routed + shared, balance_loss(probabilities, chosen)


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
        self, embedded: torch.Tensor, hidden: torch.Tensor, sequences: Sequences
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states for the shared head [N, H] and the balance loss.

        embedded: of the tokens after those that `hidden`, the trunk's states after its last norm, was read at.
        """
        embedded = rms_norm(embedded, self.pre_fc_norm_embedding)
        x = self.fc(torch.cat((embedded, rms_norm(hidden, self.pre_fc_norm_hidden)), dim=-1)).float()
        x, balance = decoder_layer(cast("hf.Qwen3_5MoeDecoderLayer", self.layers[0]), x, sequences)
        return rms_norm(x, self.norm), balance
