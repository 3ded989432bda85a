"""Every family's checkpoint through a pack and back: names, fused tensors, models without experts."""

from pathlib import Path

import numpy as np
import pytest

from edge.checkpoint.export import Export
from edge.checkpoint.layout import Format
from edge.checkpoint.names import dense_tensors
from edge.checkpoint.pack import Pack
from edge.checkpoint.random_model import write_random_checkpoint
from edge.checkpoint.summary import count_parameters
from edge.checkpoint.verify import Verification
from edge.cli import main
from edge.config import QWEN3, QWEN3_NEXT, ModelConfig
from edge.errors import CheckpointError, PackError
from tests.unit.edge.checkpoint.samples import FAMILIES, change_json, change_tensors, convert, read_tensors
from tests.unit.edge.checkpoint.test_pack_manifest import sign

DENSE = next(config for config in FAMILIES if config.family == QWEN3)
FUSED = next(config for config in FAMILIES if config.family == QWEN3_NEXT)


@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config.family)
def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path, config: ModelConfig) -> None:
    write_random_checkpoint(tmp_path / "source", config, tokenizer=False)
    pack = convert(tmp_path / "source", tmp_path / "pack")
    assert pack.config == config
    assert list(Verification(pack.path).run(lambda _: None)) == []
    Export(pack, stored=True).write(tmp_path / "back", lambda _: None)
    before, after = (read_tensors(tmp_path / name / "model.safetensors") for name in ("source", "back"))
    assert before.keys() == after.keys()
    for name, (form, values) in before.items():
        if values.ndim == 1 or "conv1d" in name:  # a pack keeps vectors as float32
            form, values = Format.F32, (values.astype(np.uint32) << 16).view(np.float32)
        assert after[name][0] is form
        np.testing.assert_array_equal(after[name][1], values, err_msg=name)


def test_the_rows_of_each_key_head_are_told_apart() -> None:
    # 2 key heads of 10 that serve 3 value heads of 7 each: 10 rows of queries, 10 of keys, 21 of values, 21 of gates.
    runs = {tensor.name.rpartition(".")[2]: tensor.runs for tensor in dense_tensors(FUSED) if tensor.runs}
    first, second = [0, 10, 20, 41], [62, 72, 82, 103]
    assert [run.start for run in runs["in_proj_qkv"]] == [first[0], second[0], first[1], second[1], first[2], second[2]]
    assert [len(run) for run in runs["in_proj_qkv"]] == [10, 10, 10, 10, 21, 21]
    assert runs["in_proj_z"] == (range(41, 62), range(103, 124))
    assert runs["in_proj_b"] == (range(3), range(6, 9))
    assert runs["in_proj_a"] == (range(3, 6), range(9, 12))


def test_a_fused_tensor_of_another_size_is_named(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "source", FUSED)
    name = "model.layers.0.linear_attn.in_proj_qkvz.weight"
    change_tensors(tmp_path / "source", lambda tensors: tensors.update({name: (Format.BF16, tensors[name][1][:-1])}))
    with pytest.raises(CheckpointError, match=r"in_proj_qkvz.weight is \[123, 40\]; the config asks for \[124, 40\]"):
        convert(tmp_path / "source", tmp_path / "pack")


@pytest.fixture
def dense_pack(tmp_path: Path) -> Pack:
    write_random_checkpoint(tmp_path / "source", DENSE)
    return convert(tmp_path / "source", tmp_path / "pack", bits=4)


def test_a_dense_model_has_no_expert_files(dense_pack: Pack) -> None:
    assert dense_pack.expert_paths == ()
    assert dense_pack.manifest.contents.nbytes == dense_pack.dense_nbytes
    with pytest.raises(PackError, match="a qwen3 model has no routed experts"):
        _ = dense_pack.experts
    parameters = count_parameters(DENSE)
    assert parameters.active == parameters.total


def test_a_dense_manifest_with_experts_is_refused(dense_pack: Pack) -> None:
    change_json(dense_pack.path / "manifest.json", lambda manifest: manifest.update(experts={}))
    change_json(dense_pack.path / "manifest.json", sign)
    with pytest.raises(PackError, match=r"manifest\.experts is '\{\}'; must be null: the model has no"):
        Pack.open(dense_pack.path)


def test_info_says_the_family(dense_pack: Pack, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(dense_pack.path)]) == 0
    shown = {line[:22].strip(): line[22:] for line in capsys.readouterr().out.splitlines()}
    assert shown["family"] == "qwen3"
    assert shown["experts per layer"] == "none, one MLP of size 44"
