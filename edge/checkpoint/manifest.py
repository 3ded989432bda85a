"""manifest.json: what a pack says of itself, as a value, written and read back with every field checked."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edge.checkpoint.contents import MANIFEST_FILE, TOKENIZER_FILES, Contents, DenseEntry
from edge.checkpoint.layout import BLOCK_ALIGNMENT, MATRIX_ALIGNMENT, VERSION, ExpertLayout, Format, MatrixLayout
from edge.checkpoint.names import Part, Role, dense_tensors, part_shape
from edge.checkpoint.precision import BITS
from edge.config import ModelConfig
from edge.errors import CheckpointError, PackError
from edge.kernels import crc32c

KIND = "flashgate-pack"
MAX_CRC = 2**32 - 1


@dataclass(frozen=True, slots=True)
class TokenizerFile:
    """A file copied into the tokenizer directory."""

    name: str
    nbytes: int
    crc: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """The text that a pack's weights were quantised for."""

    sha256: str  # of the file
    tokens: int  # used of it


@dataclass(frozen=True, slots=True)
class Manifest:
    """A pack's contents with the CRC-32C of each piece. `source` and `skipped` are as source.py reports them."""

    name: str
    contents: Contents
    dense_crcs: tuple[int, ...]
    expert_crcs: tuple[tuple[int, ...], ...]  # [layer][expert], of whole blocks
    tokenizer: tuple[TokenizerFile, ...]
    source: Mapping[str, Any]
    skipped: Mapping[str, Any]
    calibration: Calibration | None = None  # None: each weight was rounded to the nearest that its bits can say


def without_mtp(manifest: Manifest) -> Manifest:
    """The manifest of the same pack without the MTP layer."""
    contents = manifest.contents.without_mtp()
    return replace(
        manifest,
        contents=contents,
        dense_crcs=manifest.dense_crcs[: len(contents.dense)],
        expert_crcs=manifest.expert_crcs[: len(contents.expert_files)],
    )


def dump_manifest(manifest: Manifest) -> bytes:
    """The bytes of manifest.json; its own checksum is over all other fields."""
    contents = manifest.contents
    experts = contents.experts
    body = {
        "format": KIND,
        "version": VERSION,
        "name": manifest.name,
        "bits": contents.bits,
        "group": contents.group,
        "config": contents.config.to_json(),
        "source": dict(manifest.source),
        "skipped": dict(manifest.skipped),
        "calibration": asdict(manifest.calibration) if manifest.calibration else None,
        "tokenizer": [{"name": f.name, "nbytes": f.nbytes, "crc32c": f.crc} for f in manifest.tokenizer],
        "dense": [
            {
                "name": entry.name,
                "shape": list(entry.shape),
                "matrix": _dump_layout(entry.layout) if entry.layout else None,
                "offset": entry.offset,
                "crc32c": crc,
            }
            for entry, crc in zip(contents.dense, manifest.dense_crcs, strict=True)
        ],
        "experts": {
            **{part.value: _dump_layout(getattr(experts, part.value)) for part in Part},
            "block_bytes": experts.block_bytes,
            "crc32c": [list(crcs) for crcs in manifest.expert_crcs],
        }
        if experts
        else None,
    }
    return json.dumps({**body, "crc32c": _body_crc(body)}).encode() + b"\n"


def read_manifest(path: Path) -> Manifest:
    """The manifest of the pack at `path`. Raises PackError naming the file and, where there is one, the field."""
    file = path / MANIFEST_FILE
    try:
        text = file.read_bytes()
    except FileNotFoundError as error:
        raise PackError(_explain_absence(path)) from error
    except OSError as error:
        raise PackError(f"{file}: {error.strerror}") from error
    try:
        return parse_manifest(text)
    except PackError as error:
        raise PackError(f"{file}: {error}") from error


def parse_manifest(text: bytes) -> Manifest:
    """The value in the bytes of a manifest.json. Raises PackError naming the field that is wrong."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PackError(f"not JSON, cut off or altered: {error}") from error
    if not isinstance(body, dict) or body.get("format") != KIND:
        raise PackError("not the manifest of a packed model")
    if body.get("version") != VERSION:
        raise PackError(f"version {body.get('version')!r}; this program reads version {VERSION}: convert again")
    crc = body.pop("crc32c", None)
    try:
        is_altered = crc != _body_crc(body)
    except RecursionError as error:  # nested less deeply than reading takes, but more than writing does
        raise PackError(f"altered: {error}") from error
    if is_altered:
        raise PackError("altered: its checksum does not match")
    return _parse(_Node(body, "manifest"))


class _Node:
    """A JSON value and its place, for errors that say where."""

    def __init__(self, value: Any, where: str) -> None:
        self.value = value
        self.where = where

    def __getitem__(self, key: str) -> "_Node":
        if not isinstance(self.value, dict) or key not in self.value:
            raise PackError(f"{self.where}: no field {key}")
        return _Node(self.value[key], f"{self.where}.{key}")

    def items(self) -> "Iterator[_Node]":
        self._check(isinstance(self.value, list), "a list")
        return (_Node(value, f"{self.where}[{index}]") for index, value in enumerate(self.value))

    def mapping(self) -> dict[str, Any]:
        self._check(isinstance(self.value, dict), "an object")
        return dict(self.value)

    def text(self) -> str:
        self._check(isinstance(self.value, str), "a string")
        return str(self.value)

    def integer(self, least: int = 0, most: int = 2**62) -> int:
        self._check(type(self.value) is int and least <= self.value <= most, f"a whole number {least}..{most}")
        return int(self.value)

    def one_of(self, choices: tuple[float, ...]) -> float:
        self._check(type(self.value) in (int, float) and self.value in choices, f"one of {choices}")
        number: float = self.value
        return number

    def _check(self, valid: bool, wanted: str) -> None:
        if not valid:
            raise PackError(f"{self.where} is {str(self.value)[:60]!r}; must be {wanted}")


def _parse(node: _Node) -> Manifest:
    try:
        config = ModelConfig.from_json(node["config"].mapping())
    except CheckpointError as error:
        raise PackError(str(error)) from error
    bits, group = node["bits"].one_of(BITS), node["group"].integer()
    dense, dense_crcs = _parse_dense(node["dense"], config)
    experts, expert_crcs = _parse_experts(node["experts"], config)
    contents = Contents(config, bits, group, dense, experts)
    _check_group(contents)
    return Manifest(
        name=node["name"].text(),
        contents=contents,
        dense_crcs=dense_crcs,
        expert_crcs=expert_crcs,
        tokenizer=_parse_tokenizer(node["tokenizer"]),
        source=_parse_source(node["source"]),
        skipped=_parse_skipped(node["skipped"]),
        calibration=_parse_calibration(node),
    )


def _parse_dense(node: _Node, config: ModelConfig) -> tuple[tuple[DenseEntry, ...], tuple[int, ...]]:
    tensors = dense_tensors(config)
    items = list(node.items())
    if len(items) != len(tensors):
        raise PackError(f"{node.where} has {len(items)} tensors; the config asks for {len(tensors)}")
    entries, crcs, end, section = [], [], 0, ""
    for item, tensor in zip(items, tensors, strict=True):
        if (name := item["name"].text()) != tensor.name:
            raise PackError(f"{item.where} is {name}; the config asks for {tensor.name} here")
        if item["shape"].value != list(tensor.shape):
            raise PackError(f"{item.where}: {name} is {item['shape'].value}; the config asks for {list(tensor.shape)}")
        layout = (
            None if tensor.role is Role.VECTOR else _parse_layout(item["matrix"], (tensor.shape[0], tensor.shape[1]))
        )
        entry = DenseEntry(name, tensor.shape, layout, item["offset"].integer(end))
        alignment = MATRIX_ALIGNMENT if tensor.section == section else BLOCK_ALIGNMENT
        if entry.offset % alignment:
            raise PackError(f"{item.where}.offset is {entry.offset}; must be a multiple of {alignment}")
        entries.append(entry)
        crcs.append(item["crc32c"].integer(0, MAX_CRC))
        end, section = entry.offset + entry.nbytes, tensor.section
    return tuple(entries), tuple(crcs)


def _parse_experts(node: _Node, config: ModelConfig) -> tuple[ExpertLayout | None, tuple[tuple[int, ...], ...]]:
    """Their layout and checksums."""
    if config.num_experts == 0:
        if node.value is not None:
            raise PackError(f"{node.where} is {str(node.value)[:60]!r}; must be null: the model has no routed experts")
        return None, ()
    gate, up, down = (_parse_layout(node[part.value], part_shape(config, part)) for part in Part)
    layout = ExpertLayout(gate, up, down)
    if node["block_bytes"].integer() != layout.block_bytes:
        raise PackError(f"{node.where}.block_bytes is {node['block_bytes'].value}; must be {layout.block_bytes}")
    return layout, _parse_expert_crcs(node["crc32c"], config)


def _parse_expert_crcs(node: _Node, config: ModelConfig) -> tuple[tuple[int, ...], ...]:
    layers = tuple(tuple(crc.integer(0, MAX_CRC) for crc in layer.items()) for layer in node.items())
    if [len(layer) for layer in layers] != [config.num_experts] * config.num_expert_layers:
        raise PackError(f"{node.where}: must be {config.num_expert_layers} lists of {config.num_experts} checksums")
    return layers


def _parse_layout(node: _Node, shape: tuple[int, int]) -> MatrixLayout:
    name = node["format"].text()
    if name not in Format.__members__:
        raise PackError(f"{node.where}.format is {name!r}; known: {', '.join(Format.__members__)}")
    if (rows := node["rows"].integer(), cols := node["cols"].integer()) != shape:
        raise PackError(f"{node.where} is [{rows}, {cols}]; the config asks for {list(shape)}")
    try:
        return MatrixLayout(Format[name], rows, cols, node["group"].integer())
    except ValueError as error:
        raise PackError(f"{node.where}: {error}") from error


def _check_group(contents: Contents) -> None:
    experts = contents.experts
    layouts = [entry.layout for entry in contents.dense] + [getattr(experts, part.value, None) for part in Part]
    for layout in layouts:
        if layout and layout.format.is_quantized and layout.group != contents.group:
            raise PackError(f"manifest.group is {contents.group}, but a matrix has groups of {layout.group}")


def _parse_tokenizer(node: _Node) -> tuple[TokenizerFile, ...]:
    files = tuple(_parse_tokenizer_file(item) for item in node.items())
    if len({file.name for file in files}) != len(files):
        raise PackError(f"{node.where}: names a file twice")
    return files


def _parse_tokenizer_file(node: _Node) -> TokenizerFile:
    name = node["name"].text()
    if name not in TOKENIZER_FILES:
        raise PackError(f"{node.where}.name is {name[:60]!r}; must be one of {', '.join(TOKENIZER_FILES)}")
    return TokenizerFile(name, node["nbytes"].integer(), node["crc32c"].integer(0, MAX_CRC))


def _parse_source(node: _Node) -> dict[str, Any]:
    files = [
        {
            "name": file["name"].text(),
            "nbytes": file["nbytes"].integer(),
            "header_sha256": file["header_sha256"].text(),
        }
        for file in node["files"].items()
    ]
    return {"config_sha256": node["config_sha256"].text(), "files": files}


def _parse_skipped(node: _Node) -> dict[str, dict[str, int]]:
    kinds = {kind: node[kind] for kind in node.mapping()}
    return {kind: {key: item[key].integer() for key in ("tensors", "nbytes")} for kind, item in kinds.items()}


def _parse_calibration(node: _Node) -> Calibration | None:
    """None as well in packs from before there was any."""
    if node.mapping().get("calibration") is None:
        return None
    calibration = node["calibration"]
    return Calibration(calibration["sha256"].text(), calibration["tokens"].integer(1))


def _dump_layout(layout: MatrixLayout) -> dict[str, Any]:
    return {"format": layout.format.name, "rows": layout.rows, "cols": layout.cols, "group": layout.group}


def _body_crc(body: Mapping[str, Any]) -> int:
    return crc32c(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


def _explain_absence(path: Path) -> str:
    if not path.is_dir():
        return f"{path}: no such directory"
    if (path / "config.json").is_file():
        return f"{path}: a checkpoint, not a packed model: run `flashgate-edge convert` on it first"
    return f"{path}: not a packed model, {MANIFEST_FILE} is missing"
