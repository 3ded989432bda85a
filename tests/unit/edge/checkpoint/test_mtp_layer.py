"""The multi-token-prediction layer on its way from a checkpoint into a pack, and the packs that do without it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.checkpoint.convert import Conversion
from edge.checkpoint.export import Export
from edge.checkpoint.geometries import geometry
from edge.checkpoint.hf_config import write_config
from edge.checkpoint.layout import Format
from edge.checkpoint.names import dense_tensors
from edge.checkpoint.pack import Pack
from edge.checkpoint.random_model import write_random_checkpoint
from edge.checkpoint.source import Checkpoint
from edge.checkpoint.summary import count_parameters
from edge.checkpoint.verify import Verification
from edge.cli import main
from edge.config import QWEN3, QWEN3_NEXT, ModelConfig
from edge.errors import CheckpointError, PackError
from tests.unit.edge.checkpoint.samples import (
    FAMILIES,
    TINY,
    Tensors,
    change_json,
    change_tensors,
    convert,
    read_tensors,
)
from tests.unit.edge.checkpoint.test_pack_manifest import sign
from tests.unit.edge.checkpoint.test_synth import make

WITH_MTP = replace(TINY, num_mtp_layers=1)
EXPERTS = "mtp.layers.0.mlp.experts"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    write_random_checkpoint(path, WITH_MTP, tokenizer=False)
    return path


HYBRID = [replace(config, num_mtp_layers=1) for config in FAMILIES if config.num_key_heads]


@pytest.mark.parametrize("config", HYBRID, ids=lambda config: config.family)
def test_it_comes_back_bit_for_bit(tmp_path: Path, config: ModelConfig) -> None:
    write_random_checkpoint(tmp_path / "source", config, tokenizer=False)
    pack = convert(tmp_path / "source", tmp_path / "pack")
    assert pack.config == config
    assert len(pack.expert_paths) == (4 if config.num_experts else 0)
    assert list(Verification(pack.path).run(lambda _: None)) == []
    Export(pack, stored=True).write(tmp_path / "back", lambda _: None)
    before, after = (read_tensors(tmp_path / name / "model.safetensors") for name in ("source", "back"))
    assert before.keys() == after.keys()
    for name in (name for name in before if name.startswith("mtp.")):
        (form, values), (_, found) = before[name], after[name]
        if values.ndim == 1:  # a pack keeps vectors as float32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        assert form is Format.BF16
        np.testing.assert_array_equal(found, values, err_msg=name)
    checkpoint = Checkpoint(tmp_path / "back")
    checkpoint.close()
    assert checkpoint.config == config


def test_its_names_are_those_of_the_releases(source: Path) -> None:
    names = {name for name in read_tensors(source / "model.safetensors") if name.startswith("mtp.")}
    assert {name for name in names if ".layers." not in name} == {
        "mtp.fc.weight",
        "mtp.norm.weight",
        "mtp.pre_fc_norm_embedding.weight",
        "mtp.pre_fc_norm_hidden.weight",
    }
    assert {f"{EXPERTS}.gate_up_proj", f"{EXPERTS}.down_proj", "mtp.layers.0.self_attn.q_proj.weight"} <= names


def test_its_experts_are_read_one_by_one_too(source: Path) -> None:
    fused = convert(source, source.parent / "fused")

    def unfuse(tensors: Tensors) -> None:
        form, gate_up = tensors.pop(f"{EXPERTS}.gate_up_proj")
        _, down = tensors.pop(f"{EXPERTS}.down_proj")
        for expert in range(TINY.num_experts):
            tensors[f"{EXPERTS}.{expert}.gate_proj.weight"] = (form, gate_up[expert, : TINY.expert_size])
            tensors[f"{EXPERTS}.{expert}.up_proj.weight"] = (form, gate_up[expert, TINY.expert_size :])
            tensors[f"{EXPERTS}.{expert}.down_proj.weight"] = (form, down[expert])

    change_tensors(source, unfuse)
    single = convert(source, source.parent / "single")
    assert single.expert_paths[3].read_bytes() == fused.expert_paths[3].read_bytes()


def test_it_is_quantised_like_any_layer(source: Path) -> None:
    with Conversion(source, source.parent / "out", bits=4) as conversion:
        done: list[int] = []
        conversion.run(done.append)
        assert sum(done) == conversion.source_bytes
    layouts = {entry.name: entry.layout for entry in Pack.open(source.parent / "out").manifest.contents.dense}
    forms = {name: layout.format for name, layout in layouts.items() if layout and name.startswith("mtp.")}
    assert forms.pop("mtp.layers.0.mlp.gate") is forms.pop("mtp.layers.0.mlp.shared_expert_gate") is Format.BF16
    assert all(form.is_quantized for form in forms.values())


def test_a_promise_without_tensors_is_noted(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "source", TINY, tokenizer=False)
    change_json(tmp_path / "source" / "config.json", lambda config: config.update(mtp_num_hidden_layers=1))
    with Conversion(tmp_path / "source", tmp_path / "out") as conversion:
        assert any("MTP layer" in note for note in conversion.notes)
        conversion.run(lambda _: None)
    assert Pack.open(tmp_path / "out").config == TINY


@pytest.mark.parametrize(
    "change",
    [
        {"mtp_num_hidden_layers": 0},
        {"mtp_num_hidden_layers": 2},
        {"mtp_num_hidden_layers": None},
        {"mtp_use_dedicated_embeddings": True},
    ],
    ids=str,
)
def test_one_that_the_engine_cannot_run_is_skipped(source: Path, change: dict[str, Any]) -> None:
    change_json(source / "config.json", lambda config: config.update(change))
    pack = convert(source, source.parent / "out")
    assert pack.config == TINY
    assert pack.manifest.skipped["mtp"]["tensors"] == sum("mtp" in name for name in read_all(source))


def read_all(source: Path) -> Tensors:
    return read_tensors(source / "model.safetensors")


def test_qwen3_next_has_one_without_saying_so(tmp_path: Path) -> None:
    config = replace(WITH_MTP, family=QWEN3_NEXT)
    write_random_checkpoint(tmp_path / "source", config, tokenizer=False)
    change_json(tmp_path / "source" / "config.json", lambda values: values.pop("mtp_num_hidden_layers"))
    assert convert(tmp_path / "source", tmp_path / "out").config == config


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda tensors: tensors.pop("mtp.fc.weight"), "missing tensors mtp.fc.weight"),
        (lambda tensors: tensors.pop(f"{EXPERTS}.down_proj"), f"missing tensors {EXPERTS}.0.down_proj.weight"),
        (
            lambda tensors: tensors.update({"mtp.layers.1.input_layernorm.weight": tensors["mtp.norm.weight"]}),
            "unknown tensors mtp.layers.1.input_layernorm.weight",
        ),
        (
            lambda tensors: tensors.update({"mtp.fc.weight": (Format.BF16, np.zeros((40, 40), np.uint16))}),
            "mtp.fc.weight is [40, 40]; the config asks for [40, 80]",
        ),
    ],
)
def test_a_damaged_one_is_named(source: Path, change: Any, named: str) -> None:
    change_tensors(source, change)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(source)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mtp_num_hidden_layers": "1"}, "mtp_num_hidden_layers is '1'; must be int"),
        ({"mtp_use_dedicated_embeddings": 0}, "mtp_use_dedicated_embeddings is 0; must be true or false"),
    ],
)
def test_a_mistyped_key_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_hf(write_config(WITH_MTP, "float32") | change)
    assert named in str(caught.value)


def test_a_pack_without_it_is_the_beginning_of_one_with_it(source: Path) -> None:
    pack = convert(source, source.parent / "out")
    plain = pack.without_mtp()
    assert plain.config == TINY
    assert list(plain.load_dense()) == [tensor.name for tensor in dense_tensors(TINY)]
    assert plain.expert_paths == pack.expert_paths[:3]
    assert plain.manifest.contents.nbytes < pack.manifest.contents.nbytes
    assert plain.without_mtp() == plain
    assert count_parameters(pack.config) == count_parameters(TINY)


def test_a_pack_of_before_there_was_one_is_read(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "source", TINY, tokenizer=False)
    pack = convert(tmp_path / "source", tmp_path / "pack")
    change_json(pack.path / "manifest.json", lambda manifest: manifest["config"].pop("num_mtp_layers"))
    change_json(pack.path / "manifest.json", sign)
    assert Pack.open(pack.path).config == TINY


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_mtp_layers": 2}, "num_mtp_layers is 2; must be above 0 and at most 1"),
        ({"num_mtp_layers": 0}, "the config asks for"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(source: Path, change: dict[str, int], named: str) -> None:
    pack = convert(source, source.parent / "pack")
    change_json(pack.path / "manifest.json", lambda manifest: manifest["config"].update(change))
    change_json(pack.path / "manifest.json", sign)
    with pytest.raises(PackError, match=named):
        Pack.open(pack.path)


def test_random_checkpoints_have_one_if_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["random", str(tmp_path / "source"), "--mtp"]) == 0
    assert main(["convert", str(tmp_path / "source"), str(tmp_path / "pack")]) == 0
    assert Pack.open(tmp_path / "pack").config.num_mtp_layers == 1
    assert main(["info", str(tmp_path / "pack")]) == 0
    assert "4: 1 full, 3 linear; an MTP layer, to draft with" in capsys.readouterr().out
    config = json.loads((tmp_path / "source" / "config.json").read_text())
    assert config["mtp_num_hidden_layers"] == 1


@pytest.mark.parametrize("options", [{}, {"distinct_layers": 2}], ids=str)
def test_synthetic_packs_have_one_if_asked(tmp_path: Path, options: dict[str, int]) -> None:
    config = replace(
        geometry("qwen3.5-35b-a3b", num_layers=4, num_experts=9, vocab_size=70, has_mtp=True), hidden_size=128
    )
    pack = make(tmp_path / "pack", config, **options)
    assert pack.config.num_mtp_layers == 1
    assert len(pack.expert_paths) == 5
    assert list(Verification(pack.path).run(lambda _: None)) == []


def test_a_family_without_it_is_refused() -> None:
    with pytest.raises(CheckpointError, match="qwen3-8b has no MTP layer"):
        geometry("qwen3-8b", has_mtp=True)
    plain = next(config for config in FAMILIES if config.family == QWEN3)
    assert "mtp_num_hidden_layers" not in write_config(plain, "float32")
