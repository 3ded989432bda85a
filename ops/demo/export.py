"""A trained model as a Hugging Face checkpoint that transformers and `flashgate-edge convert` read."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ops.demo.network.model import DemoModel
from ops.demo.shape import MAX_BYTES

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def checkpoint_tensors(model: DemoModel) -> dict[str, torch.Tensor]:
    """By their names in the released checkpoints, in bfloat16; a tied head is not written."""
    tensors = {name.removeprefix("causal."): tensor for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    return {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in tensors.items()}


def export_checkpoint(model: DemoModel, tokenizer: Path, out: Path, training: Mapping[str, object]) -> int:
    """Write config.json, model.safetensors, the tokenizer's files and training.json into `out`; the weights' file size.

    The weights' header names a digest of what was written: a pack remembers the header, and so the very model.
    Raises: ValueError if it is more than the repository takes.
    """
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).resolve() != (out / name).resolve():
            shutil.copyfile(tokenizer / name, out / name)
    config = model.config.to_diff_dict() | {
        "architectures": ["Qwen3_5MoeForCausalLM"],
        "dtype": "bfloat16",
        "mtp_num_hidden_layers": len(model.mtp.layers),
    }
    _write_json(out / "config.json", config)
    _write_json(out / "training.json", training)
    weights, tensors = out / "model.safetensors", checkpoint_tensors(model)
    metadata = {"format": "pt", "sha256": _digest(tensors, [out / name for name in TOKENIZER_FILES])}
    save_file(tensors, weights, metadata=metadata)
    weights.chmod(0o644)  # safetensors keeps its files to their owner
    size = weights.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{weights} has {size} bytes; the repository takes {MAX_BYTES}")
    return size


def _digest(tensors: Mapping[str, torch.Tensor], files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].view(torch.int16).numpy().data)
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
