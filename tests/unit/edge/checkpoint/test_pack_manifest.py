"""Packs from elsewhere: whatever is missing, cut off, altered or hostile is an error that names file and field."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.checkpoint.layout import VERSION
from edge.checkpoint.manifest import dump_manifest, parse_manifest, read_manifest
from edge.checkpoint.matrix import Matrix
from edge.checkpoint.pack import Pack
from edge.errors import PackError
from edge.kernels import crc32c
from tests.unit.edge.checkpoint.samples import change_json, convert


@pytest.fixture
def pack(source: Path) -> Path:
    return convert(source, source.parent / "pack", bits=4).path


def sign(manifest: dict[str, Any]) -> None:
    """Make the checksum right again, as somebody who means harm would."""
    manifest.pop("crc32c")
    body = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    manifest["crc32c"] = crc32c(body)


def test_the_version_is_2_until_the_bytes_change() -> None:
    assert VERSION == 2


def test_what_is_written_is_read_back(pack: Path) -> None:
    manifest = read_manifest(pack)
    assert dump_manifest(manifest) == (pack / "manifest.json").read_bytes()


def test_a_pack_offers_what_the_engine_asks_for(pack: Path) -> None:
    opened = Pack.open(pack)
    assert [path.name for path in opened.expert_paths] == ["000.experts", "001.experts", "002.experts"]
    first = opened.expert_paths[1].read_bytes()[: opened.experts.block_bytes]
    assert crc32c(first) == opened.expert_crc(1, 0)
    loaded: list[int] = []
    tensors = opened.load_dense(loaded.append)
    assert sum(loaded) == opened.dense_nbytes == (pack / "dense.bin").stat().st_size
    for tensor in tensors.values():
        if not isinstance(tensor, Matrix):
            assert tensor.dtype == np.float32
            assert tensor.flags.c_contiguous
    conv = tensors["layers.0.linear_attn.conv1d"]
    assert not isinstance(conv, Matrix)
    assert conv.shape == (82, 3)


def test_each_layers_dense_tensors_can_be_read_in_one_piece(pack: Path) -> None:
    opened = Pack.open(pack)
    sections = opened.manifest.contents.sections
    assert list(sections) == ["embed_tokens", "layers.0", "layers.1", "layers.2", "norm", "lm_head"]
    data, end = (pack / "dense.bin").read_bytes(), 0
    for section in sections.values():
        assert section.offset == end
        assert section.nbytes % 4096 == 0
        end = section.offset + section.nbytes
        covered = section.offset
        for entry in section.entries:
            assert not any(data[covered : entry.offset])
            covered = entry.offset + entry.nbytes
        assert not any(data[covered:end])
    assert end == opened.dense_nbytes
    assert sum(len(section.entries) for section in sections.values()) == len(opened.manifest.dense_crcs)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda pack: (pack / "manifest.json").unlink(), "not a packed model, manifest.json is missing"),
        (lambda pack: (pack / "dense.bin").unlink(), "dense.bin: No such file"),
        (lambda pack: os.truncate(pack / "dense.bin", 100), "dense.bin: 100 bytes; the manifest says"),
        (lambda pack: os.truncate(pack / "layers" / "002.experts", 5), "002.experts: 5 bytes; the manifest says"),
        (lambda pack: (pack / "layers" / "001.experts").unlink(), "001.experts: No such file"),
        (lambda pack: (pack / "tokenizer" / "tokenizer.json").write_text("{}"), "tokenizer.json: 2 bytes"),
        (lambda pack: flip(pack / "tokenizer" / "tokenizer.json", 40), "tokenizer.json: altered: its checksum"),
        (lambda pack: (pack / "tokenizer" / "chat_template.jinja").write_text("x"), "chat_template.jinja: added after"),
        (lambda pack: (pack / "manifest.json").write_bytes(b"\xff"), "manifest.json: not JSON"),
        (lambda pack: os.truncate(pack / "manifest.json", 1000), "manifest.json: not JSON, cut off or altered"),
        (lambda pack: (pack / "manifest.json").write_text("[]"), "not the manifest of a packed model"),
        (lambda pack: (pack / "manifest.json").write_text('{"format": "gguf"}'), "not the manifest of a packed model"),
    ],
)
def test_damaged_files_are_named(pack: Path, spoil: Callable[[Path], object], named: str) -> None:
    spoil(pack)
    with pytest.raises(PackError) as caught:
        Pack.open(pack)
    assert named in str(caught.value)
    assert str(pack) in str(caught.value)


def test_a_checkpoint_is_told_from_a_pack(source: Path) -> None:
    with pytest.raises(PackError, match="run `flashgate-edge convert` on it first"):
        Pack.open(source)
    with pytest.raises(PackError, match="no such directory"):
        Pack.open(source / "nothing")


@pytest.mark.parametrize("version", [1, 3, "2", None])
def test_another_version_says_to_convert_again(pack: Path, version: object) -> None:
    change_json(pack / "manifest.json", lambda manifest: manifest.update(version=version))
    with pytest.raises(PackError, match="this program reads version 2: convert again"):
        Pack.open(pack)


def test_any_altered_field_is_noticed(pack: Path) -> None:
    change_json(pack / "manifest.json", lambda manifest: manifest["config"].update(rope_theta=1e6 + 1))
    with pytest.raises(PackError, match="altered: its checksum does not match"):
        Pack.open(pack)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda m: m.pop("name"), "manifest: no field name"),
        (lambda m: m.update(name=3), "manifest.name is '3'; must be a string"),
        (lambda m: m.update(bits="4"), "manifest.bits is '4'; must be one of (16, 8, 4, 3.4, 3, 2)"),
        (lambda m: m.update(bits=5), "manifest.bits is '5'; must be one of"),
        (lambda m: m.update(bits=1e400), "manifest.bits is 'inf'"),
        (lambda m: m.update(bits=True), "manifest.bits is 'True'"),
        (lambda m: m["config"].pop("top_k"), "top_k is 0; must be above 0"),
        (lambda m: m["config"].update(num_layers=10**9), "num_layers is 1000000000; must be above 0 and at most 1024"),
        (lambda m: m["config"].update(hidden_size=80), "[70, 40]; the config asks for [70, 80]"),
        (lambda m: m.update(dense={}), "manifest.dense is '{}'; must be a list"),
        (lambda m: m["dense"].pop(), "manifest.dense has 47 tensors; the config asks for 48"),
        (lambda m: m["dense"][3].update(name="x"), "manifest.dense[3] is x"),
        (lambda m: m["dense"].reverse(), "manifest.dense[0] is lm_head; the config asks for embed_tokens"),
        (lambda m: m["dense"][0].update(offset=-64), "manifest.dense[0].offset is '-64'"),
        (lambda m: m["dense"][0].update(offset=64), "must be a multiple of 4096"),
        (lambda m: m["dense"][2].update(offset=m["dense"][2]["offset"] + 10), "must be a multiple of 64"),
        (lambda m: m.update(experts=None), "manifest.experts: no field gate"),
        (lambda m: m["dense"][1].update(offset=0), "manifest.dense[1].offset is '0'"),
        (lambda m: m["dense"][0].update(offset=2**80), "manifest.dense[0].offset is"),
        (lambda m: m["dense"][-1].update(offset=2**40), "dense.bin: "),
        (lambda m: m["dense"][0].update(crc32c=2**32), "manifest.dense[0].crc32c is"),
        (lambda m: m["dense"][0].update(matrix=None), "manifest.dense[0].matrix: no field format"),
        (lambda m: m["dense"][0]["matrix"].update(format="Q5"), "format is 'Q5'; known: F32, F16, BF16, Q8, Q4, Q3"),
        (lambda m: m["dense"][0]["matrix"].update(format="Q8"), "manifest.dense[1].offset is"),
        (lambda m: m["dense"][0]["matrix"].update(format="BF16"), "group 64 of BF16; float formats have none"),
        (lambda m: m["experts"]["gate"].update(group=256), "manifest.experts.block_bytes is"),
        (lambda m: m["dense"][0]["matrix"].update(rows=2**60), "manifest.dense[0].matrix is"),
        (lambda m: m["dense"][0]["matrix"].update(group=32), "group 32 of Q4; must be a positive multiple of 64"),
        (lambda m: m["dense"][0]["matrix"].update(group=2**61), "dense[1].offset is"),
        (lambda m: m["experts"].pop("up"), "manifest.experts: no field up"),
        (lambda m: m["experts"]["up"].update(cols=36), "manifest.experts.up is [36, 36]"),
        (lambda m: m["experts"].update(block_bytes=4096 * 9), "manifest.experts.block_bytes is 36864; must be"),
        (lambda m: m["experts"]["crc32c"].pop(), "must be 3 lists of 5 checksums"),
        (lambda m: m["experts"]["crc32c"][1].append(0), "must be 3 lists of 5 checksums"),
        (lambda m: m["experts"]["crc32c"][2].__setitem__(0, -1), "manifest.experts.crc32c[2][0] is '-1'"),
        (lambda m: m["tokenizer"][0].update(name="../../etc/passwd"), "must be one of tokenizer.json, "),
        (lambda m: m["tokenizer"][0].update(name="a\0b"), "must be one of tokenizer.json, "),
        (lambda m: m["tokenizer"].append(m["tokenizer"][0]), "manifest.tokenizer: names a file twice"),
        (lambda m: m.update(group=128), "manifest.group is 128, but a matrix has groups of 64"),
        (lambda m: m["source"].pop("files"), "manifest.source: no field files"),
        (lambda m: m["skipped"].update(mtp=[]), "manifest.skipped.mtp: no field tensors"),
    ],
)
def test_hostile_manifests_are_refused_field_by_field(
    pack: Path, spoil: Callable[[dict[str, Any]], object], named: str
) -> None:
    change_json(pack / "manifest.json", spoil)
    change_json(pack / "manifest.json", sign)
    with pytest.raises(PackError) as caught:
        Pack.open(pack)
    assert named in str(caught.value)


def test_what_is_nested_at_the_edge_of_reading_is_refused() -> None:
    for depth in range(950, 1010):  # reading and writing JSON give up at different depths
        text = b'{"format": "flashgate-pack", "version": 2, "a": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
        with pytest.raises(PackError, match=r"altered"):
            parse_manifest(text)


def test_an_altered_weight_is_named_when_it_is_loaded(pack: Path) -> None:
    opened = Pack.open(pack)
    entry = opened.manifest.contents.dense[7]
    flip(pack / "dense.bin", entry.offset)
    flip(pack / "layers" / "001.experts", 3 * opened.experts.block_bytes + 17)
    with pytest.raises(PackError, match=f"dense.bin: {entry.name} is altered"):
        opened.load_dense()
    block = np.empty(opened.experts.block_bytes, np.uint8)
    opened.read_expert(1, 2, block)
    with pytest.raises(PackError, match=r"001\.experts: expert 3 is altered"):
        opened.read_expert(1, 3, block)


def flip(path: Path, offset: int) -> None:
    """Change one bit."""
    with path.open("rb+") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))
