"""Every key of a Qwen3.5-MoE config.json, and what it means to this engine.

These are the keys that transformers writes and those of the Qwen3.5 releases. Any other key is an error: it may change
the model's answers in a way nobody here has looked at.
"""

from dataclasses import dataclass
from typing import Any

NESTED, TEXT = "qwen3_5_moe", "qwen3_5_moe_text"


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


Rule = Field | Only | Read | Ignored

TRAINING = Ignored("training only")
RECORD = Ignored("a record of who wrote the file")
RETURNED = Ignored("what transformers hands out beside the logits")
CHAT = Ignored("the tokenizer and the engine decide it")
VISION = Ignored("the vision part is skipped")
MTP = Ignored("the multi-token-prediction part is skipped")

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

TEXT_KEYS: dict[str, Rule] = COMMON_KEYS | {
    "hidden_size": Field("hidden_size", int),
    "num_hidden_layers": Field("num_layers", int),
    "vocab_size": Field("vocab_size", int),
    "rms_norm_eps": Field("rms_norm_eps", float),
    "max_position_embeddings": Field("max_positions", int),
    "num_attention_heads": Field("num_attention_heads", int),
    "num_key_value_heads": Field("num_kv_heads", int),
    "head_dim": Field("head_dim", int),
    "linear_num_key_heads": Field("num_key_heads", int),
    "linear_num_value_heads": Field("num_value_heads", int),
    "linear_key_head_dim": Field("key_head_dim", int),
    "linear_value_head_dim": Field("value_head_dim", int),
    "linear_conv_kernel_dim": Field("conv_width", int),
    "num_experts": Field("num_experts", int),
    "num_experts_per_tok": Field("top_k", int),
    "moe_intermediate_size": Field("expert_size", int),
    "shared_expert_intermediate_size": Field("shared_expert_size", int),
    # Several spellings each.
    "layer_types": Read(),
    "full_attention_interval": Read(),
    "rope_parameters": Read(),
    "rope_scaling": Read(),
    "rope_theta": Read(),
    "partial_rotary_factor": Read(),
    # What the engine always does.
    "model_type": Only((TEXT,)),
    "hidden_act": Only(("silu",)),
    "attention_bias": Only((False,)),
    "attn_output_gate": Only((True,)),
    "output_gate_type": Only(("swish", "silu")),
    "norm_topk_prob": Only((True,)),
    "decoder_sparse_step": Only((1,)),
    "mlp_only_layers": Only(([], None)),
    "mamba_ssm_dtype": Only(("float32", None)),
    # What changes no answer.
    "attention_dropout": TRAINING,
    "initializer_range": TRAINING,
    "router_aux_loss_coef": TRAINING,
    "intermediate_size": Ignored("the size of dense layers, which no released model has"),
    "mtp_num_hidden_layers": MTP,
    "mtp_use_dedicated_embeddings": MTP,
}

NESTED_KEYS: dict[str, Rule] = COMMON_KEYS | {
    "model_type": Only((NESTED,)),
    "text_config": Read(),
    "vision_config": VISION,
    "image_token_id": VISION,
    "video_token_id": VISION,
    "vision_start_token_id": VISION,
    "vision_end_token_id": VISION,
    "language_model_only": VISION,
}

ROPE_KEYS: dict[str, Rule] = {
    "rope_type": Only(("default",)),
    "type": Only(("default", "mrope")),  # the old spelling
    "rope_theta": Read(),
    "partial_rotary_factor": Read(),
    "mrope_section": Ignored("all three position grids of a text are equal, so sections change nothing"),
    "mrope_interleaved": Ignored("as mrope_section"),
}
