"""Whatever stands in a file from elsewhere, the answer is our error and never another one."""

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edge.checkpoint.hf_config import write_config
from edge.checkpoint.hf_keys import FAMILIES, NESTED_KEYS
from edge.checkpoint.manifest import dump_manifest, parse_manifest, read_manifest
from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.checkpoint.tensor_file import TensorFile
from edge.config import ModelConfig
from edge.errors import CheckpointError, PackError
from edge.kernels import crc32c
from tests.unit.edge.checkpoint.samples import TINY, convert

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(
    sorted(set(NESTED_KEYS).union(*({*family.keys, *family.rope_keys} for family in FAMILIES.values())))
)


@given(st.dictionaries(KEYS, ANYTHING, min_size=1, max_size=4), st.booleans(), st.sampled_from(sorted(FAMILIES)))
def test_a_config_of_anything(changes: dict[str, Any], in_rope: bool, family: str) -> None:
    config = write_config(SMALL, "float32") | {"model_type": family}
    (config["rope_parameters"] if in_rope else config).update(changes)
    with suppress(CheckpointError):
        ModelConfig.from_hf(config, changes)


@given(st.sampled_from(sorted(TINY.to_json())), ANYTHING)
def test_a_stored_config_of_anything(field: str, value: object) -> None:
    with suppress(CheckpointError):
        ModelConfig.from_json(TINY.to_json() | {field: value})


@contextmanager
def file_of(content: bytes) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        path.write_bytes(content)
        yield path


ENTRY = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F32", "BF16", "X"]) | ANYTHING, "shape": ANYTHING, "data_offsets": ANYTHING}
)


@given(st.dictionaries(st.text(max_size=3), ENTRY | ANYTHING, max_size=3) | ANYTHING, st.integers(0, 40))
def test_a_tensor_table_of_anything(table: object, num_bytes: int) -> None:
    header = json.dumps(table).encode()
    with file_of(struct.pack("<Q", len(header)) + header + bytes(num_bytes)) as path, suppress(CheckpointError):
        TensorFile(path).close()


@given(st.binary(max_size=60))
def test_a_tensor_file_of_any_bytes(content: bytes) -> None:
    with file_of(content) as path, suppress(CheckpointError):
        TensorFile(path).close()


def _manifest() -> bytes:
    with TemporaryDirectory() as folder:
        write_random_checkpoint(Path(folder) / "source", TINY)
        return dump_manifest(read_manifest(convert(Path(folder) / "source", Path(folder) / "pack", bits=4).path))


MANIFEST = _manifest()


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from _places(value[key], (*path, key))


PLACES = sorted(_places(json.loads(MANIFEST)), key=lambda path: (len(path), str(path)))


@given(st.sampled_from(PLACES), ANYTHING)
def test_a_signed_manifest_with_anything_anywhere(place: tuple[Any, ...], value: object) -> None:
    manifest = json.loads(MANIFEST)
    parent = manifest
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    if place != ("crc32c",):
        manifest.pop("crc32c")
        manifest["crc32c"] = crc32c(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode())
    with suppress(PackError):
        parse_manifest(json.dumps(manifest).encode())


@given(st.integers(0, len(MANIFEST) - 1), st.integers(1, 255))
def test_a_manifest_with_one_byte_changed_is_refused_or_the_same(place: int, change: int) -> None:
    altered = bytearray(MANIFEST)
    altered[place] ^= change
    with suppress(PackError):
        assert parse_manifest(bytes(altered)) == parse_manifest(MANIFEST)
