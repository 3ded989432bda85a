"""The shapes of real models, for packs of random weights that cost what the real ones cost.

Published: the shapes of the 397B and of Qwen3-8B, from their config.json, and of the 35B and the 9B, which are the
defaults of transformers' Qwen3_5MoeTextConfig and Qwen3_5TextConfig; of the 122B its layers, experts, experts per token
and vocabulary. Assumed: the 122B's widths and heads, as its siblings have them; they make 122.1 B weights, 9.7 B of
them active, as its name says. The 9B and Qwen3-8B are dense.
There are no end tokens: random text must not end before it was asked to.
"""

from dataclasses import replace

from edge.config import FULL_ATTENTION, LINEAR_ATTENTION, MAX_LAYERS, QWEN3, QWEN3_5, ModelConfig
from edge.errors import CheckpointError

FULL_ATTENTION_INTERVAL = 4  # of which the last layer is one


def _layer_types(num_layers: int) -> tuple[str, ...]:
    """The pattern of every Qwen3.5: three linear layers, then a full one."""
    return tuple(
        LINEAR_ATTENTION if (layer + 1) % FULL_ATTENTION_INTERVAL else FULL_ATTENTION for layer in range(num_layers)
    )


_QWEN3_5_397B = ModelConfig(
    hidden_size=4096,
    num_layers=60,
    vocab_size=248_320,
    layer_types=_layer_types(60),
    rms_norm_eps=1e-6,
    num_attention_heads=32,
    num_kv_heads=2,
    head_dim=256,
    rotary_dim=64,
    rope_theta=1e7,
    num_key_heads=16,
    num_value_heads=64,
    key_head_dim=128,
    value_head_dim=128,
    conv_width=4,
    num_experts=512,
    top_k=10,
    expert_size=1024,
    shared_expert_size=1024,
    tie_embeddings=False,
    max_positions=262_144,
    eos_token_ids=(),
)

GEOMETRIES = {
    "qwen3.5-397b-a17b": _QWEN3_5_397B,
    "qwen3.5-122b-a10b": replace(
        _QWEN3_5_397B, hidden_size=3072, num_layers=48, layer_types=_layer_types(48), num_experts=256, top_k=8
    ),
    "qwen3.5-35b-a3b": replace(
        _QWEN3_5_397B,
        hidden_size=2048,
        num_layers=40,
        layer_types=_layer_types(40),
        num_attention_heads=16,
        num_value_heads=32,
        num_experts=256,
        top_k=8,
        expert_size=512,
        shared_expert_size=512,
    ),
    "qwen3.5-9b": replace(
        _QWEN3_5_397B,
        family=QWEN3_5,
        num_layers=32,
        layer_types=_layer_types(32),
        num_attention_heads=16,
        num_kv_heads=4,
        num_value_heads=32,
        num_experts=0,
        top_k=0,
        expert_size=0,
        shared_expert_size=0,
        mlp_size=12288,
    ),
    "qwen3-8b": ModelConfig(
        family=QWEN3,
        hidden_size=4096,
        num_layers=36,
        vocab_size=151_936,
        layer_types=(FULL_ATTENTION,) * 36,
        rms_norm_eps=1e-6,
        norm_plus_one=False,
        num_attention_heads=32,
        num_kv_heads=8,
        head_dim=128,
        rotary_dim=128,
        rope_theta=1e6,
        attention_gate=False,
        mlp_size=12288,
        tie_embeddings=False,
        max_positions=40_960,
        eos_token_ids=(),
    ),
}


def geometry(
    name: str,
    *,
    num_layers: int | None = None,
    num_experts: int | None = None,
    vocab_size: int | None = None,
    has_mtp: bool = False,
) -> ModelConfig:
    """A model of GEOMETRIES, cut down where asked; all that is not counted here keeps its size.

    `has_mtp`: with the MTP layer that every release of Qwen3.5 has behind its last one.
    Raises: CheckpointError for an unknown name, or a count that makes no model.
    """
    if name not in GEOMETRIES:
        raise CheckpointError(f"geometry {name!r}; known: {', '.join(GEOMETRIES)}")
    config = GEOMETRIES[name]
    layers = config.num_layers if num_layers is None else num_layers
    if layers > MAX_LAYERS:
        raise CheckpointError(f"{layers} layers; at most {MAX_LAYERS}")
    if num_experts is not None and not config.num_experts:
        raise CheckpointError(f"{num_experts} experts; {name} is dense and has none")
    is_hybrid = LINEAR_ATTENTION in config.layer_types
    if has_mtp and not is_hybrid:
        raise CheckpointError(f"{name} has no MTP layer; those that have one: Qwen3.5")
    return replace(
        config,
        num_layers=layers,
        layer_types=_layer_types(layers) if is_hybrid else (FULL_ATTENTION,) * layers,
        num_experts=config.num_experts if num_experts is None else num_experts,
        vocab_size=config.vocab_size if vocab_size is None else vocab_size,
        num_mtp_layers=int(has_mtp),
    )
