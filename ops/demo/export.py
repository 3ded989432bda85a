"""A trained model as a Hugging Face checkpoint that transformers and `flashgate-edge convert` read."""

import json
import shutil
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


def export_checkpoint(model: DemoModel, tokenizer: Path, out: Path) -> int:
    """Write config.json, model.safetensors and the tokenizer's files into `out`; the weights' file size.

    Raises: ValueError if it is more than the repository takes.
    """
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    weights = out / "model.safetensors"
    save_file(checkpoint_tensors(model), weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors keeps its files to their owner
    config = model.config.to_diff_dict() | {
        "architectures": ["Qwen3_5MoeForCausalLM"],
        "dtype": "bfloat16",
        "mtp_num_hidden_layers": len(model.mtp.layers),
    }
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for name in TOKENIZER_FILES:
        if (tokenizer / name).resolve() != (out / name).resolve():
            shutil.copyfile(tokenizer / name, out / name)
    size = weights.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{weights} has {size} bytes; the repository takes {MAX_BYTES}")
    return size
