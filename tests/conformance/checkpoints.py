"""Random tiny checkpoints made by transformers itself, which is also their oracle."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

# The models are tiny: a second thread would only wait, and on a busy machine for long.
torch.set_num_threads(1)

LINEAR, FULL = "linear_attention", "full_attention"


@dataclasses.dataclass(frozen=True)
class Shape:
    """A model with no two dimensions alike that a mistake could swap, and how its checkpoint is written."""

    name: str
    text: dict[str, Any]
    model_type: str = "qwen3_5_moe_text"
    dtype: str = "float32"
    is_fused: bool = True
    shard_size: str = "1GB"

    @property
    def is_of_all_bits(self) -> bool:
        """Whether it is packed below 4 bits, too: one family shows what that does to experts."""
        return self.model_type.startswith("qwen3_5_moe")

    @property
    def has_vision(self) -> bool:
        """Whether it is a model of text and images."""
        return self.model_type in ("qwen3_5", "qwen3_5_moe")


def _text(**changes: object) -> dict[str, Any]:
    """3 key and 6 value heads, key width 20, value width 12; experts of 28, the shared one of 36; 3 experts of 10."""
    return (
        _dense_text()
        | {
            "moe_intermediate_size": 28,
            "shared_expert_intermediate_size": 36,
            "num_experts": 10,
            "num_experts_per_tok": 3,
        }
        | changes
    )


def _dense_text(**changes: object) -> dict[str, Any]:
    """The same with one MLP of 68."""
    return (
        _plain_text()
        | {
            "layer_types": [LINEAR, LINEAR, LINEAR, FULL],
            "linear_key_head_dim": 20,
            "linear_value_head_dim": 12,
            "linear_num_key_heads": 3,
            "linear_num_value_heads": 6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.5,
                "mrope_section": [2, 2, 2],
                "mrope_interleaved": True,
            },
        }
        | changes
    )


def _plain_text(**changes: object) -> dict[str, Any]:
    """Full attention alone, 6 query and 2 key heads of 24."""
    return {
        "vocab_size": 131,
        "hidden_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "intermediate_size": 68,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    } | changes


SHAPES = (
    Shape("interval-of-four", _text()),
    Shape(
        "all-linear-tied-one-expert-of-five-bf16",
        _text(
            vocab_size=97,
            hidden_size=70,
            num_hidden_layers=3,
            layer_types=[LINEAR] * 3,
            linear_key_head_dim=8,
            linear_value_head_dim=36,
            linear_num_key_heads=2,
            linear_num_value_heads=2,
            linear_conv_kernel_dim=3,
            moe_intermediate_size=33,
            shared_expert_intermediate_size=20,
            num_experts=5,
            num_experts_per_tok=1,
            tie_word_embeddings=True,
        ),
        dtype="bfloat16",
        is_fused=False,
    ),
    Shape(
        "all-full-every-expert-fp16",
        _text(
            hidden_size=52,
            num_hidden_layers=3,
            layer_types=[FULL] * 3,
            num_attention_heads=5,
            num_key_value_heads=5,
            head_dim=32,
            num_experts=6,
            num_experts_per_tok=6,
            rms_norm_eps=1e-5,
        ),
        dtype="float16",
        is_fused=False,
    ),
    Shape(
        "mixed-with-vision-parts-bf16",
        _text(
            vocab_size=211,
            hidden_size=96,
            num_hidden_layers=5,
            layer_types=[FULL, LINEAR, FULL, LINEAR, LINEAR],
            num_attention_heads=4,
            num_key_value_heads=1,
            linear_num_key_heads=2,
            linear_num_value_heads=8,
            linear_key_head_dim=44,
            linear_value_head_dim=16,
            moe_intermediate_size=64,
            shared_expert_intermediate_size=100,
            num_experts=16,
            num_experts_per_tok=5,
        ),
        model_type="qwen3_5_moe",
        dtype="bfloat16",
        shard_size="300KB",
    ),
    # As wide as vector registers and groups are: the others live in the tails of the kernels' loops.
    Shape(
        "whole-registers-tied",
        _text(
            vocab_size=256,
            hidden_size=256,
            layer_types=[LINEAR, FULL, LINEAR, LINEAR],
            num_attention_heads=8,
            num_key_value_heads=2,
            head_dim=128,
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            linear_key_head_dim=128,
            linear_value_head_dim=64,
            moe_intermediate_size=128,
            shared_expert_intermediate_size=192,
            num_experts=16,
            num_experts_per_tok=4,
            tie_word_embeddings=True,
        ),
    ),
    Shape("dense-tied-bf16", _plain_text(num_hidden_layers=3, tie_word_embeddings=True), "qwen3", dtype="bfloat16"),
    Shape("dense-untied", _plain_text(num_key_value_heads=3, head_dim=40, rms_norm_eps=1e-5), "qwen3"),
    Shape(
        "experts-alone-unscaled",
        _plain_text(moe_intermediate_size=28, num_experts=10, num_experts_per_tok=3, norm_topk_prob=False),
        "qwen3_moe",
    ),
    Shape(
        "experts-alone-scaled-tied-bf16",
        _plain_text(
            num_hidden_layers=3,
            moe_intermediate_size=36,
            num_experts=7,
            num_experts_per_tok=2,
            norm_topk_prob=True,
            tie_word_embeddings=True,
        ),
        "qwen3_moe",
        dtype="bfloat16",
        is_fused=False,
    ),
    Shape("fused-projections", _text(), "qwen3_next"),
    Shape(
        "fused-projections-tied-unscaled-bf16",
        _text(
            num_hidden_layers=3,
            layer_types=[LINEAR, FULL, LINEAR],
            linear_num_key_heads=2,
            linear_num_value_heads=8,
            linear_value_head_dim=28,
            norm_topk_prob=False,
            tie_word_embeddings=True,
        ),
        "qwen3_next",
        dtype="bfloat16",
        is_fused=False,
    ),
    Shape("dense-hybrid-tied", _dense_text(num_hidden_layers=4, tie_word_embeddings=True), "qwen3_5_text"),
    Shape("dense-hybrid-with-vision-parts-bf16", _dense_text(vocab_size=97), "qwen3_5", dtype="bfloat16"),
)


def _randomise(model: torch.nn.Module, seed: int) -> None:
    """Give every parameter a value that shows when it is misused: no norm weight of 0 or 1, no even routing."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("A_log"):
            value = noise * 0.7 - 1
        elif parameter.ndim == 1:
            offset = parameter.data if name.endswith("norm.weight") else 0.0  # around where training begins: 0 or 1
            value = offset + noise * 0.3
        elif name.endswith("conv1d.weight"):
            value = noise * 0.5
        elif name.endswith("mlp.gate.weight"):
            value = noise * 2 / parameter.shape[-1] ** 0.5
        elif "embed_tokens" in name:
            value = noise
        else:
            value = noise / parameter.shape[-1] ** 0.5
        parameter.data.copy_(value)


def build(shape: Shape, seed: int = 0) -> transformers.PreTrainedModel:
    model: transformers.PreTrainedModel
    if shape.has_vision:
        vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 20, "num_heads": 2, "patch_size": 4}
        vision |= {"out_hidden_size": shape.text["hidden_size"], "num_position_embeddings": 16}
        config = AutoConfig.for_model(shape.model_type, text_config=shape.text, vision_config=vision)
        model = AutoModelForImageTextToText.from_config(config)  # type: ignore[no-untyped-call]
    else:
        config = AutoConfig.for_model(shape.model_type, **shape.text)
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    _randomise(model, seed)
    model.to(getattr(torch, shape.dtype))
    return model


def load(path: Path) -> transformers.PreTrainedModel:
    """The oracle: the checkpoint at `path` in float32."""
    model: transformers.PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    # The default, a grouped matrix product, takes only rows whose size is a multiple of 16 bytes.
    if hasattr(model.config, "num_experts"):
        model.set_experts_implementation("eager")
    model.train(mode=False)
    return model


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk and what transformers makes of it, in float32."""

    shape: Shape
    path: Path
    model: transformers.PreTrainedModel

    @property
    def vocab_size(self) -> int:
        """How many token ids there are."""
        size: int = self.shape.text["vocab_size"]
        return size


def oracle_logits(model: transformers.PreTrainedModel, ids: Sequence[int]) -> NDArray[np.float32]:
    """What transformers says: f32[T, vocab] of all positions of a sequence."""
    with torch.no_grad():
        return np.asarray(model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].float().numpy())


NEAR_TIE = 4e-4  # between logits of a router: some times what rounding of activations does to them


def clear_prompt(model: transformers.PreTrainedModel, vocab_size: int, length: int) -> list[int]:
    """Random token ids over which no router of `model` is near a tie between experts that it takes and leaves.

    There rounding decides which expert runs, and another expert changes more than the errors that tests look for.
    """
    rng = np.random.default_rng(17)
    ids: list[int] = rng.integers(0, vocab_size, length).tolist()
    while len(tied := np.flatnonzero(router_margins(model, ids) < NEAR_TIE)) > 0:
        ids[tied[0]] = int(rng.integers(vocab_size))
    return ids


def router_margins(model: transformers.PreTrainedModel, ids: Sequence[int]) -> NDArray[np.float32]:
    """The least difference, over all layers, between the last logit chosen and the first one left: f32[T]."""
    margins = np.full(len(ids), np.inf, np.float32)

    def note(router: torch.nn.Module, _: object, output: tuple[torch.Tensor, ...]) -> None:
        falling = output[0].float().sort(dim=-1, descending=True).values.numpy()
        top_k: int = router.top_k  # type: ignore[assignment]
        if top_k < falling.shape[1]:
            np.minimum(margins, falling[:, top_k - 1] - falling[:, top_k], out=margins)

    routers = [module for name, module in model.named_modules() if name.endswith("mlp.gate")]
    hooks = [router.register_forward_hook(note) for router in routers]
    oracle_logits(model, ids)
    for hook in hooks:
        hook.remove()
    return margins
