"""Writes a GGUF model of random Q4_0 weights with the geometry of a packed model, for llama.cpp to run.

    python llama_gguf.py OUT.gguf < geometry.json

Needs `gguf` and numpy only. The geometry is what `flashgate-edge info --json` prints under "config". Matrices are Q4_0
(18 bytes for 32 weights: 4.5 bits each, as our 4-bit packs), vectors and the router float32, as llama.cpp's converter
makes them.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ARCHITECTURE = "qwen35moe"
BLOCK_WEIGHTS, BLOCK_BYTES = 32, 18  # of Q4_0: a float16 scale, then 32 codes of 4 bits
WRITE_BYTES = 64 * 1024**2
# Codes stand for -8 ... 7. Drawn evenly they have a mean, and a matrix of weights with a mean adds one and the same
# vector to every token: after two layers all tokens have the same experts. So there are no -8 but more zeros.
CENTRED = np.array([byte | 8 * (byte % 16 == 0) | 128 * (byte < 16) for byte in range(256)], np.uint8)
CODE_SPREAD = 17.5**0.5  # their standard deviation
# What layers add to a token's embedding is small beside it, so that its routing stays its own.
EMBEDDING_SPREAD = 1.0
WRITERS = ("attn_output", "ssm_out", "ffn_down_shexp", "ffn_down_exps")
WRITER_SCALE = 0.25

Shape = tuple[int, ...]


def matrices(config: dict[str, Any]) -> Iterator[tuple[str, Shape]]:
    """Every Q4_0 tensor with its shape, [..., rows, columns]."""
    width, vocabulary = config["hidden_size"], config["vocab_size"]
    yield "token_embd.weight", (vocabulary, width)
    if not config["tie_embeddings"]:
        yield "output.weight", (vocabulary, width)
    query = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_kv_heads"] * config["head_dim"]
    value = config["num_value_heads"] * config["value_head_dim"]
    experts, size, shared = config["num_experts"], config["expert_size"], config["shared_expert_size"]
    for layer, kind in enumerate(config["layer_types"]):
        if kind == "full_attention":
            mixer = [("attn_q", 2 * query, width), ("attn_k", kv, width), ("attn_v", kv, width)]
            mixer += [("attn_output", width, query)]
        else:
            mixer = [("attn_qkv", conv_channels(config), width), ("attn_gate", value, width)]
            mixer += [(name, config["num_value_heads"], width) for name in ("ssm_beta", "ssm_alpha")]
            mixer += [("ssm_out", width, value)]
        mixer += [("ffn_gate_shexp", shared, width), ("ffn_up_shexp", shared, width), ("ffn_down_shexp", width, shared)]
        for name, *shape in mixer:
            yield f"blk.{layer}.{name}.weight", tuple(shape)
        for name in ("ffn_gate_exps", "ffn_up_exps"):
            yield f"blk.{layer}.{name}.weight", (experts, size, width)
        yield f"blk.{layer}.ffn_down_exps.weight", (experts, width, size)


def vectors(config: dict[str, Any], random: np.random.Generator) -> Iterator[tuple[str, Any]]:
    """Every float32 tensor. The router's logits spread by about 1, so that any expert may be chosen."""
    width, heads = config["hidden_size"], config["num_value_heads"]
    yield "output_norm.weight", np.ones(width, np.float32)
    for layer, kind in enumerate(config["layer_types"]):
        values: dict[str, Any] = {
            "attn_norm.weight": np.ones(width),
            "post_attention_norm.weight": np.ones(width),
            "ffn_gate_inp.weight": random.standard_normal((config["num_experts"], width)) / width**0.5,
            "ffn_gate_inp_shexp.weight": random.standard_normal(width) / width**0.5,
        }
        if kind == "full_attention":
            values |= {f"attn_{part}_norm.weight": np.ones(config["head_dim"]) for part in "qk"}
        else:
            values |= {
                "ssm_conv1d.weight": random.standard_normal((conv_channels(config), config["conv_width"])) / 2,
                "ssm_dt.bias": np.ones(heads),
                "ssm_a": -np.exp(random.uniform(0, 2, heads)),
                "ssm_norm.weight": np.ones(config["value_head_dim"]),
            }
        yield from ((f"blk.{layer}.{name}", value.astype(np.float32)) for name, value in values.items())


def conv_channels(config: dict[str, Any]) -> int:
    """Queries, keys and values of a DeltaNet layer side by side."""
    keys = 2 * config["num_key_heads"] * config["key_head_dim"]
    return int(keys + config["num_value_heads"] * config["value_head_dim"])


def file_bytes(config: dict[str, Any]) -> int:
    """What the matrices take: nearly all of the file."""
    return sum(nbytes(shape) for _, shape in matrices(config))


def nbytes(shape: Shape) -> int:
    """Of a Q4_0 tensor."""
    return int(np.prod(shape)) // BLOCK_WEIGHTS * BLOCK_BYTES


def spread(name: str, shape: Shape) -> float:
    """Standard deviation of a matrix's weights: products keep the size of what they are given."""
    if name == "token_embd.weight":
        return EMBEDDING_SPREAD
    scale = WRITER_SCALE if any(part in name for part in WRITERS) else 1.0
    return float(scale / shape[-1] ** 0.5)


def codes(shape: Shape, spread: float, random: np.random.Generator) -> Iterator[Any]:
    """The bytes of a Q4_0 tensor piece by piece."""
    scale = np.float16(spread / CODE_SPREAD).tobytes()
    left = nbytes(shape)
    while left:
        blocks = min(left, WRITE_BYTES) // BLOCK_BYTES
        piece = CENTRED[np.frombuffer(random.bytes(blocks * BLOCK_BYTES), np.uint8)].reshape(blocks, BLOCK_BYTES)
        piece[:, :2] = np.frombuffer(scale, np.uint8)
        yield piece
        left -= piece.nbytes


def write(path: Path, config: dict[str, Any], seed: int = 0) -> None:
    """Write the file, telling stderr how far it is."""
    import gguf

    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    add_metadata(writer, config)
    floats = dict(vectors(config, random))
    for name, value in floats.items():
        writer.add_tensor_info(name, value.shape, value.dtype, value.nbytes)
    shapes = dict(matrices(config))
    for name, shape in shapes.items():
        stored = (*shape[:-1], shape[-1] // BLOCK_WEIGHTS * BLOCK_BYTES)
        kind = gguf.GGMLQuantizationType.Q4_0
        writer.add_tensor_info(name, stored, np.dtype(np.uint8), nbytes(shape), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for value in floats.values():
        writer.write_tensor_data(value)
    # By hand: the writer wants each tensor whole in memory, and one layer's experts are over a gigabyte.
    file, done, total = writer.fout[0], 0, file_bytes(config)
    for name, shape in shapes.items():
        writer.write_padding(file, file.tell())
        for piece in codes(shape, spread(name, shape), random):
            file.write(piece.data)
            done += piece.nbytes
            sys.stderr.write(f"\rwriting {path.name}: {done / 1e9:.1f} of {total / 1e9:.1f} GB")
    writer.write_padding(file, file.tell())
    sys.stderr.write("\n")
    file.close()


def add_metadata(writer: Any, config: dict[str, Any]) -> None:
    """The hyperparameters that llama.cpp asks of this architecture."""
    is_full = [kind == "full_attention" for kind in config["layer_types"]]
    full = is_full.index(True) + 1 if any(is_full) else len(is_full) + 1
    if is_full != [(layer + 1) % full == 0 for layer in range(len(is_full))]:
        raise SystemExit("llama.cpp knows only models whose every n-th layer is full attention")
    if config["key_head_dim"] != config["value_head_dim"]:
        raise SystemExit("llama.cpp knows only DeltaNet heads whose keys are as wide as their values")
    writer.add_context_length(config["max_positions"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_kv_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["rotary_dim"])
    quarter = config["rotary_dim"] // 2 // 4  # text alone turns all sections by the same position
    writer.add_rope_dimension_sections([config["rotary_dim"] // 2 - 2 * quarter, quarter, quarter, 0])
    writer.add_expert_count(config["num_experts"])
    writer.add_expert_used_count(config["top_k"])
    writer.add_expert_feed_forward_length(config["expert_size"])
    writer.add_expert_shared_feed_forward_length(config["shared_expert_size"])
    writer.add_full_attention_interval(full)
    writer.add_ssm_conv_kernel(config["conv_width"])
    writer.add_ssm_state_size(config["key_head_dim"])
    writer.add_ssm_group_count(config["num_key_heads"])
    writer.add_ssm_time_step_rank(config["num_value_heads"])
    writer.add_ssm_inner_size(config["num_value_heads"] * config["value_head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")


if __name__ == "__main__":
    write(Path(sys.argv[1]), json.load(sys.stdin))
