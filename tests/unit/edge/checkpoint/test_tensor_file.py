"""One safetensors file: read as the safetensors package reads it, and every kind of damage named."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from edge.checkpoint.layout import Format
from edge.checkpoint.tensor_file import NewTensor, TensorFile, TensorFileWriter
from edge.errors import CheckpointError

TABLE: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
}


def assemble(table: object, data: bytes = bytes(32)) -> bytes:
    header = json.dumps(table).encode()
    return struct.pack("<Q", len(header)) + header + data


def test_rows_are_those_that_the_safetensors_package_wrote(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    tensors: dict[str, NDArray[Any]] = {
        "flat": generator.standard_normal(7, np.float32),
        "halves": generator.standard_normal((5, 3)).astype(np.float16),
        "fused": generator.standard_normal((4, 6, 5), np.float32),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    file = TensorFile(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(file.read_rows("flat", 0, 1), tensors["flat"][None])
    np.testing.assert_array_equal(file.read_rows("halves", 2, 3), tensors["halves"][2:])
    np.testing.assert_array_equal(file.read_rows("fused", 6, 12), tensors["fused"][1:3].reshape(12, 5))
    with pytest.raises(ValueError, match="rows 20 to 25"):
        file.read_rows("fused", 20, 5)
    file.close()


def test_the_safetensors_package_reads_what_is_written(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    with (tmp_path / "x.safetensors").open("wb") as out:
        writer = TensorFileWriter(out, {"x": NewTensor(Format.F32, (3, 4)), "y": NewTensor(Format.BF16, (2,))})
        writer.write(values[:1])
        writer.write(values[1:])
        writer.write(np.array([0x3F80, 0x4000], np.uint16))
        writer.finish()
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        np.testing.assert_array_equal(file.get_tensor("x").numpy(), values)
        assert file.get_tensor("y").tolist() == [1.0, 2.0]


def test_a_writer_that_stops_early_is_told(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as out:
        writer = TensorFileWriter(out, {"x": NewTensor(Format.F32, (3,))})
        with pytest.raises(ValueError, match="12 bytes fewer"):
            writer.finish()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "0 bytes; too short"),
        (b"\x01\0\0", "3 bytes; too short"),
        (struct.pack("<Q", 2**63) + b"{}", "a header of 9223372036854775808 bytes"),
        (struct.pack("<Q", 100) + b"{}", "a header of 100 bytes"),
        (struct.pack("<Q", 3) + b"{,}", "not a safetensors table"),
        (struct.pack("<Q", 2) + b"\xff\xfe", "not a safetensors table"),
        (struct.pack("<Q", 2) + b"[]", "not a safetensors table"),
        (struct.pack("<Q", 13) + b'{"a":1,"a":1}', "a stands twice"),
        (assemble(TABLE, bytes(31)), "tensors end at byte"),
        (assemble(TABLE, bytes(33)), "cut off"),
        (assemble({"a": 7}), "a has a malformed entry"),
        (assemble({"a": TABLE["a"] | {"shape": [2, -3]}}), "a has a malformed entry"),
        (assemble({"a": TABLE["a"] | {"shape": [2, 1.5]}}), "a has a malformed entry"),
        (assemble({"a": TABLE["a"] | {"data_offsets": [24, 0]}}), "a has a malformed entry"),
        (assemble({"a": TABLE["a"] | {"data_offsets": [0, 24, 32]}}), "a has a malformed entry"),
        (assemble({"a": TABLE["a"] | {"shape": [2, 4]}}), "a is F32 [2, 4] but has 24 bytes"),
        (assemble(TABLE | {"b": TABLE["b"] | {"data_offsets": [16, 24]}}), "b starts at byte"),
        (assemble(TABLE | {"b": TABLE["b"] | {"data_offsets": [32, 40]}}, bytes(40)), "b starts at byte"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        TensorFile(path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)
    with pytest.raises(SafetensorError), safe_open(path, "np"):  # the oracle finds these files damaged too
        pass


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(assemble(TABLE))
    file = TensorFile(path)
    with path.open("rb+") as handle:
        handle.truncate(path.stat().st_size - 10)
    with pytest.raises(CheckpointError, match="b ends early"):
        file.read_rows("b", 0, 1)
    file.close()


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        TensorFile(tmp_path / "x.safetensors")
