"""Checkpoint directories: what is found in them, and every way in which one can be wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.checkpoint.layout import Format
from edge.checkpoint.names import Part, dense_tensors
from edge.checkpoint.source import Checkpoint
from edge.errors import CheckpointError
from tests.unit.edge.checkpoint.samples import TINY, Tensors, change_json, change_tensors, read_tensors, write_tensors

EXPERTS = "model.layers.1.mlp.experts"


def unfuse(tensors: Tensors) -> None:
    """Experts one by one, as transformers saves them."""
    for layer in range(TINY.num_layers):
        prefix = f"model.layers.{layer}.mlp.experts."
        form, gate_up = tensors.pop(prefix + "gate_up_proj")
        _, down = tensors.pop(prefix + "down_proj")
        for expert in range(TINY.num_experts):
            tensors[f"{prefix}{expert}.gate_proj.weight"] = (form, gate_up[expert, : TINY.expert_size])
            tensors[f"{prefix}{expert}.up_proj.weight"] = (form, gate_up[expert, TINY.expert_size :])
            tensors[f"{prefix}{expert}.down_proj.weight"] = (form, down[expert])


def shard(path: Path) -> None:
    """Two files and an index."""
    tensors = list(read_tensors(path / "model.safetensors").items())
    (path / "model.safetensors").unlink()
    weight_map: dict[str, str] = {}
    for number, part in enumerate((tensors[::2], tensors[1::2]), start=1):
        name = f"model-{number:05}-of-00002.safetensors"
        write_tensors(path / name, dict(part))
        weight_map |= dict.fromkeys(dict(part), name)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def all_experts(path: Path) -> list[Any]:
    checkpoint = Checkpoint(path)
    keys = [(layer, expert, part) for layer in range(3) for expert in range(5) for part in Part]
    matrices = [checkpoint.expert(*key).read(0, checkpoint.expert(*key).rows) for key in keys]
    checkpoint.close()
    return matrices


def test_experts_are_the_same_fused_and_one_by_one_and_in_shards(source: Path) -> None:
    fused = all_experts(source)
    change_tensors(source, unfuse)
    single = all_experts(source)
    shard(source)
    sharded = all_experts(source)
    assert len(fused) == 45
    for one, two, three in zip(fused, single, sharded, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)


def test_files_without_an_index_are_read_together(source: Path) -> None:
    shard(source)
    (source / "model.safetensors.index.json").unlink()
    Checkpoint(source).close()


def test_the_identity_tells_checkpoints_apart(source: Path) -> None:
    def identity() -> dict[str, Any]:
        checkpoint = Checkpoint(source)
        checkpoint.close()
        return checkpoint.identity()

    first = identity()
    assert identity() == first
    change_json(source / "config.json", lambda config: config.update(rms_norm_eps=1e-5))
    assert identity() != first
    second = identity()
    shard(source)
    assert identity() != second


def test_parts_that_are_not_run_are_counted(source: Path) -> None:
    def add(tensors: Tensors) -> None:
        tensors["mtp.fc.weight"] = (Format.F32, np.zeros((2, 3), np.float32))
        tensors["model.visual.patch_embed.proj.bias"] = (Format.F16, np.zeros(5, np.float16))

    change_tensors(source, add)
    checkpoint = Checkpoint(source)
    checkpoint.close()
    assert checkpoint.skipped == {"mtp": {"tensors": 1, "nbytes": 24}, "vision": {"tensors": 1, "nbytes": 10}}


def test_mixed_precision_widens_what_shares_a_layout(source: Path) -> None:
    def widen_one(tensors: Tensors) -> None:
        _, data = tensors[f"{EXPERTS}.down_proj"]
        tensors[f"{EXPERTS}.down_proj"] = (Format.F16, np.ones(data.shape, np.float16))

    change_tensors(source, widen_one)
    checkpoint = Checkpoint(source)
    checkpoint.close()
    assert (checkpoint.expert_form(Part.GATE), checkpoint.expert_form(Part.DOWN)) == (Format.BF16, Format.F32)


def rename(old: str, new: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[new] = tensors.pop(old)

    return change


def reshape(name: str, *shape: int) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        form, data = tensors[name]
        tensors[name] = (form, data.reshape(shape))

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda tensors: tensors.pop("model.norm.weight"), "missing tensors norm.weight"),
        (lambda tensors: tensors.pop("lm_head.weight"), "missing tensors lm_head.weight"),
        (lambda tensors: tensors.pop(f"{EXPERTS}.down_proj"), "layers.1.mlp.experts.0.down_proj.weight"),
        (rename("model.norm.weight", "model.final_norm.weight"), "unknown tensors model.final_norm.weight"),
        (rename("lm_head.weight", "model.language_model.norm.weight"), "missing tensors embed_tokens.weight"),
        (
            lambda tensors: tensors.update({"norm.weight": tensors["model.norm.weight"]}),
            "model.norm.weight and norm.weight name the same tensor",
        ),
        (reshape(f"{EXPERTS}.down_proj", 5, 36, 40), "down_proj is [5, 36, 40]; the config asks for [5, 40, 36]"),
        (reshape("model.layers.0.linear_attn.conv1d.weight", 82, 3), "[82, 3]; the config asks for [82, 1, 3]"),
    ],
)
def test_wrong_tensors_are_named(source: Path, change: Callable[[Tensors], object], named: str) -> None:
    change_tensors(source, change)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(source)
    assert named in str(caught.value)


def test_a_long_list_is_cut_and_counted(source: Path) -> None:
    change_tensors(source, lambda tensors: [tensors.pop(name) for name in list(tensors) if "linear_attn" in name])
    with pytest.raises(CheckpointError, match=r"missing tensors layers\.0.* and 10 more"):
        Checkpoint(source)


def test_a_type_that_cannot_be_read_is_named(source: Path) -> None:
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'{"dtype":"BF16"', b'{"dtype": "I16"', 1))
    with pytest.raises(CheckpointError, match=r"model\.embed_tokens\.weight is I16; supported: F32, F16, BF16"):
        Checkpoint(source)


def drop(name: str) -> Callable[[Path], object]:
    return lambda path: (path / name).unlink()


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda path: (path / name).write_text(text)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (drop("config.json"), "config.json: No such file"),
        (drop("model.safetensors"), "no *.safetensors file"),
        (write("config.json", "{"), "config.json: not JSON"),
        (write("config.json", "[]"), "config.json: not a JSON object"),
        (write("generation_config.json", "null"), "generation_config.json: not a JSON object"),
        (write("model.safetensors", "hello"), "model.safetensors: 5 bytes"),
    ],
)
def test_wrong_files_are_named(source: Path, spoil: Callable[[Path], object], named: str) -> None:
    spoil(source)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(source)
    assert named in str(caught.value)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no such directory"):
        Checkpoint(tmp_path / "nowhere")


FIRST = "model-00001-of-00002.safetensors"


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda index: index.pop("weight_map"), "no weight_map"),
        (lambda index: index.update(weight_map={"a": 1}), "no weight_map"),
        (lambda index: index["weight_map"].update(x="model-3.safetensors"), "model-3.safetensors, which is missing"),
        (lambda index: index["weight_map"].update(x="../model.safetensors"), "'../model.safetensors' is not the name"),
        (lambda index: index["weight_map"].update(x="config.json"), "'config.json' is not the name"),
        (lambda index: index["weight_map"].update(x=FIRST), "x: the index and the files do not agree"),
        (lambda index: index["weight_map"].pop("lm_head.weight"), "lm_head.weight: the index and the files"),
    ],
)
def test_a_wrong_index_is_named(source: Path, spoil: Callable[[dict[str, Any]], object], named: str) -> None:
    shard(source)
    change_json(source / "model.safetensors.index.json", spoil)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(source)
    assert named in str(caught.value)


def test_a_tensor_in_two_files_is_named(source: Path) -> None:
    tensors = read_tensors(source / "model.safetensors")
    write_tensors(source / "extra.safetensors", {"lm_head.weight": tensors["lm_head.weight"]})
    (source / "model.safetensors").rename(source / "first.safetensors")
    with pytest.raises(CheckpointError, match=r"lm_head\.weight in extra\.safetensors and again in first"):
        Checkpoint(source)


def test_names_and_shapes_of_all_dense_tensors_are_distinct() -> None:
    names = [tensor.name for tensor in dense_tensors(TINY)]
    assert len(set(names)) == len(names)
    assert names[0] == "embed_tokens"
    assert names[-1] == "lm_head"
