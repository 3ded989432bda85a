"""What a pack holds against what transformers reads from the same checkpoint, and transformers on what we write."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer

from edge.checkpoint.convert import Conversion
from edge.checkpoint.export import Export
from edge.checkpoint.matrix import Matrix, aligned_zeros, dequantize, expert_matrices
from edge.checkpoint.names import dense_tensors
from edge.checkpoint.pack import Pack
from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from tests.conformance.checkpoints import Checkpoint, load


def pack_of(source: Path, out: Path, bits: float) -> Pack:
    with Conversion(source, out, bits=bits) as conversion:
        conversion.run(lambda _: None)
    return Pack.open(out)


def oracle_weights(model: Any) -> dict[str, NDArray[np.float32]]:
    """float32 by name below the prefix; experts fused, as transformers holds them."""
    return {name.removeprefix("model."): value.float().numpy() for name, value in model.state_dict().items()}


def packed_weights(pack: Pack) -> dict[str, NDArray[np.float32]]:
    """The same from a pack."""
    config = pack.config
    dense = pack.load_dense()
    weights: dict[str, NDArray[np.float32]] = {}
    for tensor in dense_tensors(config):
        stored = dense[tensor.name]
        values = dequantize(stored) if isinstance(stored, Matrix) else stored
        if tensor.runs:
            whole = weights.setdefault(tensor.source, np.full(tensor.source_shape, np.nan, np.float32))
            whole[[row for run in tensor.runs for row in run]] = values
        else:
            weights[tensor.source] = values.reshape(tensor.source_shape)
    if not config.num_experts:
        return weights
    block = aligned_zeros(pack.experts.block_bytes, 4096)
    for layer in range(config.num_layers):
        gate_up, downs = [], []
        for expert in range(config.num_experts):
            pack.read_expert(layer, expert, block)
            gate, up, down = expert_matrices(pack.experts, block)
            gate_up.append(np.concatenate([dequantize(gate), dequantize(up)]))
            downs.append(dequantize(down))
        weights[f"layers.{layer}.mlp.experts.gate_up_proj"] = np.stack(gate_up)
        weights[f"layers.{layer}.mlp.experts.down_proj"] = np.stack(downs)
    return weights


def assert_same(packed: dict[str, NDArray[np.float32]], oracle: dict[str, NDArray[np.float32]]) -> None:
    if "lm_head.weight" not in packed:
        np.testing.assert_array_equal(oracle.pop("lm_head.weight"), oracle["embed_tokens.weight"])
    assert packed.keys() == oracle.keys()
    for name, values in packed.items():
        np.testing.assert_array_equal(values, oracle[name], err_msg=name)


def test_16_bits_are_exactly_what_transformers_loads(checkpoint: Checkpoint, tmp_path: Path) -> None:
    assert_same(packed_weights(pack_of(checkpoint.path, tmp_path / "pack", 16)), oracle_weights(checkpoint.model))


@pytest.mark.parametrize(("bits", "single"), [(8, False), (4, False), (4, True), (3.4, True), (3, False), (2, False)])
def test_transformers_runs_exactly_the_packed_weights(
    checkpoint: Checkpoint, tmp_path: Path, bits: float, single: bool
) -> None:
    pack = pack_of(checkpoint.path, tmp_path / "pack", bits)
    Export(pack, single=single).write(tmp_path / "exported", lambda _: None)
    assert_same(packed_weights(pack), oracle_weights(load(tmp_path / "exported")))


def test_transformers_reads_a_random_checkpoint_whole(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "random")
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path / "random", dtype=torch.float32, output_loading_info=True
    )
    model, report = loaded
    assert not any(report.values())
    assert model.generation_config.eos_token_id == list(SMALL.eos_token_ids)
    logits = model(torch.tensor([[1, 2, 3, 4, 5]])).logits
    assert torch.isfinite(logits).all()
    assert 0.2 < logits.std() < 5
    assert_same(packed_weights(pack_of(tmp_path / "random", tmp_path / "pack", 16)), oracle_weights(model))


def test_transformers_reads_the_random_checkpoints_tokenizer(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "random")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "random")
    text = "Grüße, 世界! The quick brown fox\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) == SMALL.vocab_size == 512
    assert tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]) == list(SMALL.eos_token_ids)
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False
    )
    assert chat == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
