"""The commands convert, verify, info, export and random, as somebody at a terminal meets them."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge.checkpoint.export import Export
from edge.checkpoint.pack import Pack
from edge.cli import main
from edge.errors import CheckpointError, PackError
from tests.unit.edge.checkpoint.samples import change_json, convert
from tests.unit.edge.checkpoint.test_pack_manifest import flip


@pytest.fixture
def pack(source: Path) -> Path:
    return convert(source, source.parent / "pack").path


def test_convert_says_what_it_wrote(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = source.parent / "out"
    assert main(["convert", str(source), str(out), "--bits", "3.4", "--group", "128"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"wrote {out}: ")
    assert captured.out.endswith(" bytes at 3.4 bits\n")
    assert captured.err == ""  # no bar where nobody watches
    assert main(["convert", str(source), str(out)]) == 1
    assert capsys.readouterr().err == f"flashgate-edge: error: {out} exists; --force replaces it\n"
    assert main(["convert", str(source), str(out), "--force"]) == 0


def test_a_pack_is_no_checkpoint(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(pack), str(pack.parent / "out")]) == 1
    assert capsys.readouterr().err == f"flashgate-edge: error: {pack}: a packed model already, not a checkpoint\n"


def test_the_root_directory_becomes_no_pack(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(source), "/"]) == 1
    assert "/ is the root of all files; choose another place" in capsys.readouterr().err


def test_verify_finds_nothing_in_a_sound_pack(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(pack)]) == 0
    assert "are as they were packed" in capsys.readouterr().out


def test_verify_names_every_bad_piece(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = Pack.open(pack)
    block_bytes = opened.experts.block_bytes
    flip(pack / "layers" / "000.experts", 0)
    flip(pack / "layers" / "000.experts", 4 * block_bytes - 1)  # in the padding, which is covered too
    os.truncate(pack / "layers" / "001.experts", 4 * block_bytes + 1)
    (pack / "layers" / "002.experts").unlink()
    flip(pack / "dense.bin", opened.manifest.contents.dense[2].offset)
    flip(pack / "tokenizer" / "tokenizer.json", 40)
    (pack / "tokenizer" / "chat_template.jinja").write_text("new")
    assert main(["verify", str(pack)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.removeprefix(f"bad: {pack}/") for line in lines[:-1]] == [
        "dense.bin: tensor layers.0.linear_attn.in_proj_qkv is altered: its checksum does not match",
        "layers/000.experts: layer 0 expert 0 is altered: its checksum does not match",
        "layers/000.experts: layer 0 expert 3 is altered: its checksum does not match",
        f"layers/001.experts: {4 * block_bytes + 1} bytes; the manifest says {5 * block_bytes}",
        "layers/001.experts: layer 1 expert 4 is not all there",
        "layers/002.experts: No such file or directory",
        "tokenizer/tokenizer.json: the file is altered: its checksum does not match",
        "tokenizer/chat_template.jinja: added after packing",
    ]
    assert lines[-1] == f"{pack}: 8 problems: convert again"


def test_verify_trusts_no_altered_manifest(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_json(pack / "manifest.json", lambda manifest: manifest.update(name="other"))
    assert main(["verify", str(pack)]) == 1
    assert "manifest.json: altered" in capsys.readouterr().err


def test_info_says_what_a_pack_is(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(pack), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    # Counted by hand from the shapes of the tiny model.
    linear = 82 * 40 + 42 * 40 + 2 * 6 * 40 + 82 * 3 + 2 * 6 + 7 + 40 * 42
    full = 144 * 40 + 2 * 24 * 40 + 40 * 72 + 2 * 12
    per_layer = 2 * 40 + 5 * 40 + 3 * 28 * 40 + 40
    dense = 2 * 70 * 40 + 40 + 2 * linear + full + 3 * per_layer
    expert = 3 * 36 * 40
    assert info["parameters_total"] == dense + 3 * 5 * expert
    assert info["parameters_active"] == dense + 3 * 2 * expert
    assert info["expert_bytes"] == 15 * info["expert_block_bytes"]
    assert (info["name"], info["bits"], info["version"]) == ("tiny-model", 16, 2)
    assert info["least_memory_bytes"] > info["dense_bytes"]
    assert info["config"]["num_experts"] == 5
    assert main(["info", str(pack)]) == 0
    table = capsys.readouterr().out
    assert "tiny-model" in table
    assert "5, 2 per token, size 36" in table


def test_info_says_the_bits_per_weight_of_each_part(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = convert(source, source.parent / "out", bits=3.4).path
    assert main(["info", str(out), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    # [36, 40] is stored as three tiles of one record, [40, 36] too; with --group 64 and whole tiles: 3.5 and 4.5.
    parts = info["bits_per_weight"]
    assert (parts["gate"], parts["up"], parts["down"]) == (7.467, 7.467, 9.6)
    assert parts["expert"] == round(8 * 8192 / (3 * 36 * 40), 3)
    assert parts["dense"] > 4.5
    assert main(["info", str(out)]) == 0
    assert "dense " in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("bits per weight"))


@pytest.mark.parametrize("experts", ["fused", "single"])
def test_an_export_converts_to_the_same_pack(pack: Path, experts: str) -> None:
    out = pack.parent / "exported"
    assert main(["export", str(pack), str(out), "--dtype", "stored", "--experts", experts]) == 0
    again = convert(out, pack.parent / "again")
    for path, _ in again.files():
        assert path.read_bytes() == (pack / path.relative_to(again.path)).read_bytes()


@pytest.mark.parametrize("bits", [4, 3.4])
def test_an_export_of_few_bits_holds_the_dequantised_weights(source: Path, bits: float) -> None:
    coarse = convert(source, source.parent / "coarse", bits=bits)
    exported = source.parent / "exported"
    assert main(["export", str(coarse.path), str(exported)]) == 0
    fine = convert(exported, source.parent / "fine", bits=16)
    again = source.parent / "again"
    assert main(["export", str(fine.path), str(again)]) == 0
    assert (again / "model.safetensors").read_bytes() == (exported / "model.safetensors").read_bytes()


def test_an_export_that_cannot_be_finished_leaves_nothing(pack: Path) -> None:
    flip(pack / "layers" / "002.experts", 0)
    with pytest.raises(PackError, match="expert 0 is altered"):
        Export(Pack.open(pack)).write(pack.parent / "new" / "export", lambda _: None)
    assert not any((pack.parent / "new").iterdir())


def test_an_export_without_room_is_told_before_work_starts(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(CheckpointError, match=r"export needs \d+ bytes more; 1000 are free on its disk"):
        Export(Pack.open(pack)).write(pack.parent / "export", lambda _: None)
    assert not (pack.parent / "export").exists()


def test_an_export_overwrites_nothing(pack: Path) -> None:
    for out in (pack, pack / "manifest.json"):
        with pytest.raises(CheckpointError, match="exists and is not an empty directory"):
            Export(Pack.open(pack)).write(out, lambda _: None)


def test_random_refuses_a_seed_before_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["random", str(tmp_path / "out"), "--seed", "-1"]) == 1
    assert capsys.readouterr().err == "flashgate-edge: error: seed -1; must not be negative\n"
    assert not (tmp_path / "out").exists()


def test_random_gives_the_same_bytes_for_the_same_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(["random", str(tmp_path / name), "--seed", seed]) == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]
    assert main(["random", str(tmp_path / "a")]) == 1
    assert "exists and is not an empty directory" in capsys.readouterr().err
