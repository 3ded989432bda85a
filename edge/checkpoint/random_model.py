"""Small Hugging Face checkpoints of random weights, written without torch: a first model to run, and one for tests."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.byte_tokenizer import VOCABULARY_SIZE, end_token_ids, write_tokenizer
from edge.checkpoint.hf_config import DTYPE_NAMES, write_config
from edge.checkpoint.layout import Format
from edge.checkpoint.names import MTP_PREFIX, Part, dense_tensors, full_name, fused_shape, fused_source
from edge.checkpoint.tensor_file import NewTensor, TensorFileWriter
from edge.config import FULL_ATTENTION, LINEAR_ATTENTION, ModelConfig
from edge.errors import CheckpointError
from edge.quant.floats import narrow

# Big enough that experts are read and evicted as in a real model, small enough to be packed in a second.
SMALL = ModelConfig(
    hidden_size=128,
    num_layers=4,
    vocab_size=VOCABULARY_SIZE,
    layer_types=(LINEAR_ATTENTION, LINEAR_ATTENTION, LINEAR_ATTENTION, FULL_ATTENTION),
    rms_norm_eps=1e-6,
    num_attention_heads=4,
    num_kv_heads=2,
    head_dim=32,
    rotary_dim=8,
    rope_theta=1e7,
    num_key_heads=2,
    num_value_heads=4,
    key_head_dim=24,
    value_head_dim=32,
    conv_width=4,
    num_experts=64,
    top_k=4,
    expert_size=48,
    shared_expert_size=64,
    tie_embeddings=False,
    max_positions=32768,
    eos_token_ids=tuple(end_token_ids()),
)


def write_random_checkpoint(
    out: Path, config: ModelConfig = SMALL, seed: int = 0, *, tokenizer: bool = True, form: Format = Format.BF16
) -> None:
    """Write config.json, model.safetensors and, if asked, a tokenizer of 512 ids into the new directory `out`.

    The same arguments give the same bytes. Raises: CheckpointError if `out` exists and is not empty, or for the seed.
    """
    if seed < 0:
        raise CheckpointError(f"seed {seed}; must not be negative")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CheckpointError(f"{out} exists and is not an empty directory")
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(write_config(config, DTYPE_NAMES[form]), indent=2)
    (out / "config.json").write_text(text + "\n", encoding="utf-8")
    if tokenizer:
        write_tokenizer(out)
    # The MTP layer last: all else has the weights that it has without it.
    shapes = dict(sorted(tensor_shapes(config), key=lambda named: named[0].startswith(MTP_PREFIX)))
    with (out / "model.safetensors").open("wb") as file:
        writer = TensorFileWriter(file, {name: NewTensor(form, shape) for name, shape in shapes.items()})
        for index, (name, shape) in enumerate(shapes.items()):
            values = _values(np.random.default_rng([seed, index]), name, shape)
            if not config.norm_plus_one and name.endswith("norm.weight"):
                values += np.float32(1)
            writer.write(narrow(values, form))
        writer.finish()


def tensor_shapes(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    for tensor in dense_tensors(config):
        yield full_name(tensor.source), tensor.source_shape
    for layer in range(config.num_expert_layers):
        for part in (Part.GATE, Part.DOWN):  # the gate's tensor holds up as well
            yield full_name(fused_source(config, layer, part)), fused_shape(config, part)


def _values(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Of the size that training gives such tensors, so that activations neither vanish nor explode."""
    if name.endswith("A_log"):  # decay rates of 0.01 to 16, as transformers initialises them
        return np.log(rng.uniform(0.01, 16, shape)).astype(np.float32)
    normal: NDArray[np.float32] = rng.standard_normal(shape, np.float32)
    if name.endswith(("dt_bias", "linear_attn.norm.weight")):  # a plain factor or offset: around 1
        return np.float32(1) + normal / np.float32(10)
    if len(shape) == 1:  # the other norms multiply by 1 + weight: around 0
        return normal / np.float32(10)
    return normal / np.float32(np.sqrt(shape[-1]))
