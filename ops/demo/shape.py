"""The demo model's dimensions, as a config of transformers."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import Qwen3_5MoeTextConfig

VOCABULARY_SIZE = 2048
MAX_BYTES = 20_000_000  # what the repository takes, as bf16


def demo_config(**changes: object) -> "Qwen3_5MoeTextConfig":
    """The 397B's architecture at 9 million parameters: 6 layers, each with 64 experts of which a token takes 4.

    All widths are multiples of 16, the rows of a packed tile. `changes`: other values, for tests.
    """
    from transformers import Qwen3_5MoeTextConfig

    from ops.demo.tokenizer import END_OF_TEXT_ID, MAX_POSITIONS, TURN_END_ID

    values: dict[str, object] = {
        "vocab_size": VOCABULARY_SIZE,
        "hidden_size": 160,
        "num_hidden_layers": 6,
        "full_attention_interval": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "linear_num_key_heads": 4,
        "linear_num_value_heads": 8,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
        "linear_conv_kernel_dim": 4,
        "num_experts": 64,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 128,
        "max_position_embeddings": MAX_POSITIONS,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "partial_rotary_factor": 0.5,
            "mrope_section": [6, 5, 5],
            "mrope_interleaved": True,
        },
        "tie_word_embeddings": True,
        "eos_token_id": [TURN_END_ID, END_OF_TEXT_ID],
        "pad_token_id": END_OF_TEXT_ID,
    }
    return Qwen3_5MoeTextConfig(**(values | changes))  # type: ignore[arg-type]
