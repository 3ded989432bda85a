"""Tiny checkpoints with unequal, odd dimensions, and ways to spoil them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edge.checkpoint.convert import Conversion
from edge.checkpoint.layout import Format
from edge.checkpoint.pack import Pack
from edge.checkpoint.tensor_file import DTYPES, NewTensor, TensorFile, TensorFileWriter
from edge.config import (
    FULL_ATTENTION,
    LINEAR_ATTENTION,
    LINEAR_FIELDS,
    QWEN3,
    QWEN3_5,
    QWEN3_MOE,
    QWEN3_NEXT,
    ModelConfig,
)

TINY = ModelConfig(
    hidden_size=40,
    num_layers=3,
    vocab_size=70,
    layer_types=(LINEAR_ATTENTION, FULL_ATTENTION, LINEAR_ATTENTION),
    rms_norm_eps=1e-6,
    num_attention_heads=6,
    num_kv_heads=2,
    head_dim=12,
    rotary_dim=4,
    rope_theta=1e6,
    num_key_heads=2,
    num_value_heads=6,
    key_head_dim=10,
    value_head_dim=7,
    conv_width=3,
    num_experts=5,
    top_k=2,
    expert_size=36,
    shared_expert_size=28,
    tie_embeddings=False,
    max_positions=512,
    eos_token_ids=(3, 5),
)

# The same model as the other families have it.
NO_EXPERTS: dict[str, Any] = {"num_experts": 0, "top_k": 0, "expert_size": 0, "shared_expert_size": 0, "mlp_size": 44}
PLAIN: dict[str, Any] = {
    "layer_types": (FULL_ATTENTION,) * 3,
    "norm_plus_one": False,
    "attention_gate": False,
    "rotary_dim": 12,
    **dict.fromkeys(LINEAR_FIELDS, 0),
}
FAMILIES = (
    TINY,
    replace(TINY, family=QWEN3, **PLAIN, **NO_EXPERTS),
    replace(TINY, family=QWEN3_MOE, **PLAIN, shared_expert_size=0, norm_topk=False),
    replace(TINY, family=QWEN3_NEXT),
    replace(TINY, family=QWEN3_5, **NO_EXPERTS),
)

Tensors = dict[str, tuple[Format, NDArray[Any]]]


def read_tensors(path: Path) -> Tensors:
    """Every tensor of a file as it is stored."""
    file = TensorFile(path)
    tensors = {}
    for name, entry in file.tensors.items():
        rows = file.read_rows(name, 0, entry.nbytes * 8 // (DTYPES[entry.dtype].bits * entry.shape[-1]))
        tensors[name] = (DTYPES[entry.dtype], rows.reshape(entry.shape))
    file.close()
    return tensors


def write_tensors(path: Path, tensors: Tensors) -> None:
    """The reverse."""
    with path.open("wb") as file:
        writer = TensorFileWriter(file, {name: NewTensor(form, data.shape) for name, (form, data) in tensors.items()})
        for _, data in tensors.values():
            writer.write(data)
        writer.finish()


def change_tensors(checkpoint: Path, change: Callable[[Tensors], object]) -> None:
    """Rewrite the checkpoint's only file."""
    path = checkpoint / "model.safetensors"
    tensors = read_tensors(path)
    change(tensors)
    write_tensors(path, tensors)


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite a JSON file."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def convert(source: Path, out: Path, **options: Any) -> Pack:
    """Convert without a progress bar and open the result."""
    with Conversion(source, out, **options) as conversion:
        conversion.run(lambda _: None)
    return Pack.open(out)
