"""The demo model: a causal model of transformers with its MTP layer beside it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional

from ops.demo.network.chats import Chats
from ops.demo.network.forward import MtpPart, Sequences, decoder_layer, rms_norm, sequences

if TYPE_CHECKING:
    from transformers import Qwen3_5MoeTextConfig


@dataclass(frozen=True, slots=True)
class Trunk:
    """What the layers make of a batch: hidden [N, H] after the last norm, and the layers' mean balance loss."""

    hidden: torch.Tensor
    balance: torch.Tensor
    sequences: Sequences


class DemoModel(nn.Module):
    """Parameters in transformers' modules, computed by this package's forward pass."""

    def __init__(self, config: "Qwen3_5MoeTextConfig", seed: int = 0) -> None:
        from transformers import Qwen3_5MoeForCausalLM

        super().__init__()
        torch.manual_seed(seed)
        self.causal: Qwen3_5MoeForCausalLM = Qwen3_5MoeForCausalLM(config)
        self.mtp = MtpPart(config)
        for module in self.mtp.modules():
            self.causal._init_weights(module)  # type: ignore[no-untyped-call]
        self._start_close_to_linear()

    def _start_close_to_linear(self) -> None:
        """What writes into the residual stream starts small, so that depth does not add up (GPT-2's rule)."""
        layers = [*self.causal.model.layers, *self.mtp.layers]
        scale = (2 * len(layers)) ** -0.5
        with torch.no_grad():
            for layer in layers:
                mixer = layer.linear_attn.out_proj if hasattr(layer, "linear_attn") else layer.self_attn.o_proj
                for weight in (mixer.weight, layer.mlp.experts.down_proj, layer.mlp.shared_expert.down_proj.weight):
                    weight.mul_(scale)

    @property
    def config(self) -> "Qwen3_5MoeTextConfig":
        """As transformers keeps it."""
        return self.causal.config

    def trunk(self, ids: torch.Tensor, chats: Chats) -> Trunk:
        """Of token ids [N]. What follows a token never changes it, nor does another chat."""
        rope = cast("dict[str, float]", self.config.rope_parameters)
        rotary_dim = int(self.config.head_dim * rope["partial_rotary_factor"])
        placed = sequences(chats, rotary_dim, rope["rope_theta"])
        x = self.embed(ids)
        balances = []
        for layer in self.causal.model.layers:
            x, balance = decoder_layer(layer, x, placed)
            balances.append(balance)
        return Trunk(rms_norm(x, self.causal.model.norm), torch.stack(balances).mean(), placed)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """[N, H]."""
        return functional.embedding(ids, self.causal.model.embed_tokens.weight)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of hidden states after the last norm."""
        return functional.linear(hidden, self.causal.lm_head.weight).float()
