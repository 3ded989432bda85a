"""The families of models, every key of their config.json, and what it means to this engine.

These are the keys that transformers writes and those of the releases. Any other key is an error: it may change
the model's answers in a way nobody here has looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge.config import QWEN3, QWEN3_5, QWEN3_5_MOE, QWEN3_MOE, QWEN3_NEXT


@dataclass(frozen=True, slots=True)
class Field:
    """A key that must be there and becomes a field of ModelConfig."""

    name: str
    kind: type


@dataclass(frozen=True, slots=True)
class Only:
    """A key that may be there with these values alone: the engine computes nothing else."""

    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Read:
    """A key that is read below, with others that say the same."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A key without influence on the text model's answers, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class Alias:
    """Another spelling of `key`."""

    key: str


Rule = Field | Only | Read | Ignored | Alias

TRAINING = Ignored("training only")
RECORD = Ignored("a record of who wrote the file")
RETURNED = Ignored("what transformers hands out beside the logits")
CHAT = Ignored("the tokenizer and the engine decide it")
VISION = Ignored("the vision part is skipped")

# At either level.
COMMON_KEYS: dict[str, Rule] = {
    "tie_word_embeddings": Read(),
    "eos_token_id": Read(),
    "quantization_config": Only((None,)),
    "is_encoder_decoder": Only((False,)),
    "is_decoder": Only((False,)),
    "chunk_size_feed_forward": Only((0,)),
    "dtype": Ignored("each tensor says its own type"),
    "torch_dtype": Ignored("each tensor says its own type"),
    "bos_token_id": CHAT,
    "pad_token_id": CHAT,
    "use_cache": CHAT,
    "output_hidden_states": RETURNED,
    "output_attentions": RETURNED,
    "output_router_logits": RETURNED,
    "return_dict": RETURNED,
    "problem_type": TRAINING,
    "architectures": RECORD,
    "transformers_version": RECORD,
    "_name_or_path": RECORD,
    "unsloth_fixed": RECORD,
    "unsloth_version": RECORD,
}

# Of every text model.
_TEXT: dict[str, Rule] = COMMON_KEYS | {
    "hidden_size": Field("hidden_size", int),
    "num_hidden_layers": Field("num_layers", int),
    "vocab_size": Field("vocab_size", int),
    "rms_norm_eps": Field("rms_norm_eps", float),
    "max_position_embeddings": Field("max_positions", int),
    "num_attention_heads": Field("num_attention_heads", int),
    "num_key_value_heads": Field("num_kv_heads", int),
    "head_dim": Field("head_dim", int),
    "layer_types": Read(),
    "rope_parameters": Read(),
    "rope_scaling": Read(),
    "rope_theta": Read(),
    "hidden_act": Only(("silu",)),
    "attention_bias": Only((False,)),
    "use_sliding_window": Only((False, None)),
    "attention_dropout": TRAINING,
    "initializer_range": TRAINING,
}

# Of those whose attention sees everything and rotates whole heads, and whose norms multiply by the weight.
_PLAIN: dict[str, Rule] = _TEXT | {
    "sliding_window": Ignored("use_sliding_window is off"),
    "max_window_layers": Ignored("use_sliding_window is off"),
}

# Of those that mix linear attention with gated full attention.
_HYBRID: dict[str, Rule] = _TEXT | {
    "linear_num_key_heads": Field("num_key_heads", int),
    "linear_num_value_heads": Field("num_value_heads", int),
    "linear_key_head_dim": Field("key_head_dim", int),
    "linear_value_head_dim": Field("value_head_dim", int),
    "linear_conv_kernel_dim": Field("conv_width", int),
    "full_attention_interval": Read(),
    "partial_rotary_factor": Read(),
    "attn_output_gate": Only((True,)),
    "output_gate_type": Only(("swish", "silu")),
    "mamba_ssm_dtype": Only(("float32", None)),
    "mtp_num_hidden_layers": Read(),
    "mtp_use_dedicated_embeddings": Read(),
}

_DENSE: dict[str, Rule] = {"intermediate_size": Field("mlp_size", int)}

_EXPERTS: dict[str, Rule] = {
    "num_experts": Field("num_experts", int),
    "num_experts_per_tok": Field("top_k", int),
    "moe_intermediate_size": Field("expert_size", int),
    "norm_topk_prob": Field("norm_topk", bool),
    "decoder_sparse_step": Only((1,)),
    "mlp_only_layers": Only(([], None)),
    "router_aux_loss_coef": TRAINING,
    "intermediate_size": Ignored("the size of dense layers, which no released model has"),
}
_SHARED: dict[str, Rule] = {"shared_expert_intermediate_size": Field("shared_expert_size", int)}

# Beside a text part, where a model of text and images has one.
NESTED_KEYS: dict[str, Rule] = COMMON_KEYS | {
    "model_type": Read(),
    "text_config": Read(),
    "vision_config": VISION,
    "image_token_id": VISION,
    "video_token_id": VISION,
    "vision_start_token_id": VISION,
    "vision_end_token_id": VISION,
    "language_model_only": VISION,
}

_ROPE: dict[str, Rule] = {
    "rope_type": Only(("default",)),
    "type": Only(("default", "mrope")),  # the old spelling
    "rope_theta": Read(),
}
_PARTIAL_ROPE: dict[str, Rule] = _ROPE | {
    "partial_rotary_factor": Read(),
    "mrope_section": Ignored("all three position grids of a text are equal, so sections change nothing"),
    "mrope_interleaved": Ignored("as mrope_section"),
}


@dataclass(frozen=True, slots=True)
class Family:
    """The text models of one `model_type`. `fixed`: fields of ModelConfig that none of its keys says.

    `num_mtp_layers`: what a config that does not say it means, if the tensors are there.
    """

    model_type: str
    architecture: str
    keys: Mapping[str, Rule]
    rope_keys: Mapping[str, Rule]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    num_mtp_layers: int = 0

    @property
    def is_hybrid(self) -> bool:
        """Whether linear attention stands beside full attention, which then rotates a part of each head."""
        return "linear_num_key_heads" in self.keys


_PLAIN_FIXED = {"norm_plus_one": False, "attention_gate": False}

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(QWEN3, "Qwen3ForCausalLM", _PLAIN | _DENSE, _ROPE, _PLAIN_FIXED),
        Family(
            QWEN3_MOE,
            "Qwen3MoeForCausalLM",
            _PLAIN | _EXPERTS | {"num_local_experts": Alias("num_experts")},
            _ROPE,
            _PLAIN_FIXED,
        ),
        Family(QWEN3_NEXT, "Qwen3NextForCausalLM", _HYBRID | _EXPERTS | _SHARED, _PARTIAL_ROPE, num_mtp_layers=1),
        Family(QWEN3_5, "Qwen3_5ForCausalLM", _HYBRID | _DENSE, _PARTIAL_ROPE),
        Family(
            QWEN3_5_MOE,
            "Qwen3_5MoeForCausalLM",
            _HYBRID | _EXPERTS | _SHARED | {"norm_topk_prob": Only((True,))},
            _PARTIAL_ROPE,
        ),
    )
}
# Models of text and images, and the family of their text part.
NESTED = {"qwen3_5": QWEN3_5, "qwen3_5_moe": QWEN3_5_MOE}
