"""config.json: what is accepted, and that everything else is an error that names its key."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from edge.checkpoint.hf_config import write_config
from edge.config import ModelConfig
from edge.errors import CheckpointError
from tests.unit.edge.checkpoint.samples import FAMILIES, TINY

# The config.json of Qwen3.5-397B-A17B, its list of layers written as a rule.
LAYERS_397B = ["full_attention" if i % 4 == 3 else "linear_attention" for i in range(60)]
QWEN_397B: dict[str, Any] = {
    "architectures": ["Qwen3_5MoeForConditionalGeneration"],
    "image_token_id": 248056,
    "model_type": "qwen3_5_moe",
    "text_config": {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_output_gate": True,
        "dtype": "bfloat16",
        "eos_token_id": 248044,
        "full_attention_interval": 4,
        "head_dim": 256,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "layer_types": LAYERS_397B,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 64,
        "linear_value_head_dim": 128,
        "max_position_embeddings": 262144,
        "mlp_only_layers": [],
        "model_type": "qwen3_5_moe_text",
        "moe_intermediate_size": 1024,
        "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": False,
        "num_attention_heads": 32,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "num_hidden_layers": 60,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": 1024,
        "use_cache": True,
        "vocab_size": 248320,
        "mamba_ssm_dtype": "float32",
        "rope_parameters": {
            "mrope_interleaved": True,
            "mrope_section": [11, 11, 10],
            "rope_type": "default",
            "rope_theta": 10000000,
            "partial_rotary_factor": 0.25,
        },
    },
    "tie_word_embeddings": False,
    "transformers_version": "4.57.0.dev0",
    "video_token_id": 248057,
    "vision_config": {"depth": 27, "hidden_act": "gelu_pytorch_tanh"},
    "vision_end_token_id": 248054,
    "vision_start_token_id": 248053,
}


def tiny(**changes: Any) -> dict[str, Any]:
    """TINY's config.json with changes; a value of None leaves the key out."""
    config = write_config(TINY, "bfloat16") | changes
    return {key: value for key, value in config.items() if value is not None}


def test_the_397b_is_read() -> None:
    config = ModelConfig.from_hf(QWEN_397B, {"eos_token_id": [248046, 248044]})
    assert (config.hidden_size, config.num_layers, config.num_experts, config.top_k) == (4096, 60, 512, 10)
    assert (config.rotary_dim, config.rope_theta, config.conv_width) == (64, 1e7, 4)
    assert config.layer_types.count("full_attention") == 15
    assert config.eos_token_ids == (248046, 248044)
    assert not config.tie_embeddings


def test_what_is_written_is_read_back() -> None:
    assert ModelConfig.from_hf(write_config(TINY, "float32")) == TINY
    assert ModelConfig.from_json(json.loads(json.dumps(TINY.to_json()))) == TINY


@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config.family)
def test_every_family_is_written_and_read_back(config: ModelConfig) -> None:
    assert ModelConfig.from_hf(write_config(config, "float32")) == config


# As released; what says nothing of the text model left out.
RELEASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {
            "model_type": "qwen3",
            "attention_bias": False,
            "head_dim": 128,
            "hidden_act": "silu",
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "max_position_embeddings": 40960,
            "max_window_layers": 36,
            "num_attention_heads": 32,
            "num_hidden_layers": 36,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-06,
            "rope_scaling": None,
            "rope_theta": 1000000,
            "sliding_window": None,
            "tie_word_embeddings": False,
            "use_sliding_window": False,
            "vocab_size": 151936,
        },
        {"rotary_dim": 128, "mlp_size": 12288, "num_experts": 0, "norm_plus_one": False, "attention_gate": False},
    ),
    (
        {
            "model_type": "qwen3_moe",
            "attention_bias": False,
            "decoder_sparse_step": 1,
            "head_dim": 128,
            "hidden_act": "silu",
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "max_position_embeddings": 40960,
            "max_window_layers": 48,
            "mlp_only_layers": [],
            "moe_intermediate_size": 768,
            "norm_topk_prob": True,
            "num_attention_heads": 32,
            "num_local_experts": 128,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 48,
            "num_key_value_heads": 4,
            "output_router_logits": False,
            "rms_norm_eps": 1e-06,
            "rope_scaling": None,
            "rope_theta": 1000000.0,
            "router_aux_loss_coef": 0.001,
            "sliding_window": None,
            "tie_word_embeddings": False,
            "use_sliding_window": False,
            "vocab_size": 151936,
        },
        {"rotary_dim": 128, "num_experts": 128, "norm_topk": True, "shared_expert_size": 0, "norm_plus_one": False},
    ),
    (
        {
            "model_type": "qwen3_next",
            "attention_bias": False,
            "decoder_sparse_step": 1,
            "full_attention_interval": 4,
            "head_dim": 256,
            "hidden_act": "silu",
            "hidden_size": 2048,
            "intermediate_size": 5120,
            "linear_conv_kernel_dim": 4,
            "linear_key_head_dim": 128,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 32,
            "linear_value_head_dim": 128,
            "max_position_embeddings": 262144,
            "mlp_only_layers": [],
            "moe_intermediate_size": 512,
            "norm_topk_prob": True,
            "num_attention_heads": 16,
            "num_experts": 512,
            "num_experts_per_tok": 10,
            "num_hidden_layers": 48,
            "num_key_value_heads": 2,
            "partial_rotary_factor": 0.25,
            "rms_norm_eps": 1e-06,
            "rope_scaling": None,
            "rope_theta": 10000000,
            "shared_expert_intermediate_size": 512,
            "tie_word_embeddings": False,
            "use_sliding_window": False,
            "vocab_size": 151936,
        },
        {"rotary_dim": 64, "num_experts": 512, "shared_expert_size": 512, "norm_plus_one": True},
    ),
]


@pytest.mark.parametrize(("released", "fields"), RELEASES, ids=lambda value: str(value.get("model_type", "")))
def test_releases_of_the_other_families_are_read(released: dict[str, Any], fields: dict[str, Any]) -> None:
    config = ModelConfig.from_hf(released)
    assert config.family == released["model_type"]
    assert {name: getattr(config, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("released", "changes", "named"),
    [
        (RELEASES[0][0], {"use_sliding_window": True}, "use_sliding_window is True; supported: False"),
        (RELEASES[0][0], {"attention_bias": True}, "attention_bias is True; supported: False"),
        (RELEASES[0][0], {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "unknown key rope_scaling.factor"),
        (RELEASES[0][0], {"partial_rotary_factor": 0.5}, "unknown key partial_rotary_factor"),
        (RELEASES[0][0], {"layer_types": ["sliding_attention"] * 36}, "layer_types holds ['sliding_attention']"),
        (RELEASES[0][0], {"layer_types": ["linear_attention"] * 36}, "num_key_heads is 0"),
        (RELEASES[0][0], {"num_hidden_layers": 10**9}, "at most 1024"),
        (RELEASES[1][0], {"decoder_sparse_step": 2}, "decoder_sparse_step is 2; supported: 1"),
        (RELEASES[1][0], {"mlp_only_layers": [0]}, "mlp_only_layers is [0]"),
        (RELEASES[1][0], {"num_experts": 128}, "num_local_experts and num_experts name the same number"),
        (RELEASES[1][0], {"norm_topk_prob": 1}, "norm_topk_prob is 1; must be bool"),
        (RELEASES[1][0], {"shared_expert_intermediate_size": 512}, "unknown key shared_expert_intermediate_size"),
    ],
)
def test_what_the_other_families_cannot_run_is_named(
    released: dict[str, Any], changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_hf(released | changes)
    assert named in str(caught.value)


def test_a_pack_that_does_not_say_its_family_is_of_the_first_one() -> None:
    values = TINY.to_json()
    for name in ("family", "norm_plus_one", "attention_gate", "norm_topk", "mlp_size"):
        del values[name]
    assert ModelConfig.from_json(values) == TINY


@pytest.mark.parametrize("rotary", [2, 6, 10, 22, 58, 86, 94])
def test_a_rotary_size_survives_being_written_as_a_factor(rotary: int) -> None:
    config = replace(TINY, head_dim=94, rotary_dim=rotary)
    assert ModelConfig.from_hf(write_config(config, "float32")).rotary_dim == rotary


def test_the_old_spellings_of_rope_are_read() -> None:
    config = tiny(rope_parameters=None, rope_theta=5e5, partial_rotary_factor=0.5, rope_scaling={"type": "mrope"})
    read = ModelConfig.from_hf(config)
    assert (read.rope_theta, read.rotary_dim) == (5e5, 6)


def test_an_interval_stands_for_layer_types() -> None:
    config = ModelConfig.from_hf(tiny(layer_types=None, full_attention_interval=2))
    assert config.layer_types == ("linear_attention", "full_attention", "linear_attention")


def test_the_outer_tie_decides_as_in_transformers() -> None:
    config = QWEN_397B | {"tie_word_embeddings": True}
    inner = QWEN_397B["text_config"] | {"tie_word_embeddings": False}
    assert ModelConfig.from_hf(config).tie_embeddings
    assert ModelConfig.from_hf(config | {"text_config": inner}).tie_embeddings


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"model_type": "llama"},
            "model_type is 'llama'; supported: "
            "qwen3, qwen3_5, qwen3_5_moe, qwen3_5_moe_text, qwen3_5_text, qwen3_moe, qwen3_next",
        ),
        ({"model_type": ["qwen3"]}, "model_type is ['qwen3']"),
        ({"model_type": None}, "model_type is None"),
        ({"shortconv_size": 3}, "unknown key shortconv_size"),
        ({"hidden_size": None}, "missing key hidden_size"),
        ({"hidden_size": "40"}, "hidden_size is '40'; must be int"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"num_experts": 0}, "mlp_size is 0; must be above 0: num_experts is 0"),
        ({"linear_key_head_dim": 0}, "key_head_dim is 0; must be above 0: layer_types has linear attention"),
        ({"rms_norm_eps": math.nan}, "rms_norm_eps is nan"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps is 1"),
        ({"head_dim": 10**400}, "; at most 2147483648"),
        ({"num_experts": 4097}, "num_experts is 4097; must be above 0 and at most 4096"),
        ({"linear_num_key_heads": 2**30, "linear_num_value_heads": 2**30}, "num_key_heads is 1073741824"),
        ({"num_key_value_heads": 4}, "num_attention_heads is 6; must be a multiple of num_kv_heads 4"),
        ({"linear_num_value_heads": 3}, "num_value_heads is 3"),
        ({"num_experts_per_tok": 6}, "top_k is 6; must be at most num_experts 5"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; supported: 'silu'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"attention_bias": 0}, "attention_bias is 0"),
        ({"attn_output_gate": False}, "attn_output_gate is False"),
        ({"norm_topk_prob": False}, "norm_topk_prob is False"),
        ({"mamba_ssm_dtype": "bfloat16"}, "mamba_ssm_dtype is 'bfloat16'"),
        ({"mlp_only_layers": [1]}, "mlp_only_layers is"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config is"),
        ({"layer_types": ["linear_attention"]}, "layer_types has 1 entries for 3 layers"),
        ({"layer_types": ["sliding_attention"] * 3}, "layer_types holds ['sliding_attention']"),
        ({"layer_types": "linear"}, "layer_types is 'linear'"),
        ({"layer_types": None}, "missing key layer_types"),
        ({"layer_types": None, "full_attention_interval": 4, "num_hidden_layers": 10**9}, "at most 1024"),
        ({"rope_parameters": None}, "missing key rope_parameters.partial_rotary_factor"),
        ({"rope_parameters": 7}, "rope_parameters is 7; must be an object"),
        ({"rope_parameters": {"rope_theta": 1e6}}, "missing key rope_parameters.partial_rotary_factor"),
        ({"rope_parameters": {"rope_theta": 1e6, "partial_rotary_factor": math.nan}}, "partial_rotary_factor is nan"),
        ({"rope_parameters": {"rope_theta": 1e6, "partial_rotary_factor": 0.25}}, "rotary_dim is 3; must be even"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}}, "rope_parameters.rope_type is 'yarn'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, "rope_parameters and rope_scaling do not agree"),
        ({"rope_parameters": {"factor": 4.0}}, "unknown key rope_parameters.factor"),
        ({"tie_word_embeddings": None}, "missing key tie_word_embeddings"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ({"eos_token_id": "end"}, "eos_token_id is ['end']"),
        ({"eos_token_id": [-1]}, "eos_token_ids [-1]"),
    ],
)
def test_what_cannot_be_run_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_hf(tiny(**changes))
    assert named in str(caught.value)


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(CheckpointError, match=r"unknown key one; unknown key two; missing key head_dim"):
        ModelConfig.from_hf(tiny(one=1, two=2, head_dim=None))


@pytest.mark.parametrize("text", [None, []])
def test_a_nested_config_without_a_text_part_is_named(text: object) -> None:
    with pytest.raises(CheckpointError, match="text_config"):
        ModelConfig.from_hf({**QWEN_397B, "text_config": text})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_size": 1.5}, "hidden_size is 1.5"),
        ({"tie_embeddings": 1}, "tie_embeddings is 1"),
        ({"layer_types": "linear_attention"}, "layer_types is"),
        ({"eos_token_ids": [1.0]}, "eos_token_ids is"),
        ({"colour": 1}, "unknown fields ['colour']"),
        ({"family": "bert"}, "family is 'bert'; known: qwen3, "),
        ({"mlp_size": 8}, "mlp_size is 8; must be 0 in a model with experts"),
        ({"num_experts": 0, "mlp_size": 8}, "num_experts is 0; so must be top_k"),
        ({"num_experts": -1}, "num_experts is -1"),
    ],
)
def test_a_manifests_config_is_checked_field_by_field(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_json(TINY.to_json() | changes)
    assert named in str(caught.value)
