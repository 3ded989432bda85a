"""A Hugging Face checkpoint directory: its config, its tensors by the names used here, and what identifies it."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.contents import MANIFEST_FILE
from edge.checkpoint.json_file import read_object
from edge.checkpoint.layout import Format
from edge.checkpoint.names import (
    LM_HEAD,
    MTP_PREFIX,
    DenseTensor,
    Part,
    below_prefix,
    dense_tensors,
    fused_shape,
    fused_source,
    part_shape,
    single_source,
    skipped_kind,
)
from edge.checkpoint.tensor_file import DTYPES, TensorFile
from edge.checkpoint.tensor_set import TensorSet, name_some
from edge.config import ModelConfig
from edge.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class SourceMatrix:
    """Some runs of rows, one after the other, of a tensor whose leading dimensions are seen as one."""

    file: TensorFile
    name: str  # in the file
    runs: tuple[range, ...]
    cols: int

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(map(len, self.runs))

    @property
    def form(self) -> Format:
        """Precision in the checkpoint."""
        return DTYPES[self.file.tensors[self.name].dtype]

    @property
    def nbytes(self) -> int:
        """Size in the checkpoint."""
        return self.rows * self.cols * self.form.bits // 8

    def read(self, start: int, count: int) -> NDArray[Any]:
        """`count` rows from `start` on, as stored: [count, cols]; bf16 as uint16 patterns."""
        parts = [self.file.read_rows(self.name, run.start, len(run)) for run in _cut(self.runs, start, count)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class Checkpoint:
    """An open checkpoint in which every tensor was found, of the right shape and a type that can be read.

    `lacks_mtp`: its config promises an MTP layer of which no tensor is there, as many quantised copies do.
    Raises: CheckpointError naming what is missing, unknown or wrong. Reads may come from several threads.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise CheckpointError(f"{path}: no such directory")
        self.path = path
        if (path / MANIFEST_FILE).is_file():
            raise CheckpointError(f"{path}: a packed model already, not a checkpoint")
        generation = path / "generation_config.json"
        self._raw_config = read_object(path / "config.json")
        self.config = _read_config(path, self._raw_config, read_object(generation) if generation.is_file() else {})
        self._set = TensorSet(path)
        try:
            self._names = below_prefix(self._set.tensors)
            if LM_HEAD in self._names:  # transformers takes the head that is there, whatever the config says of tying
                self.config = replace(self.config, tie_embeddings=False)
            self.lacks_mtp = bool(self.config.num_mtp_layers) and not self._has_mtp()
            if self.lacks_mtp:
                self.config = self.config.without_mtp()
            self.skipped = self._skipped()
            self._check_tensors()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files; idempotent."""
        self._set.close()

    def identity(self) -> dict[str, Any]:
        """What tells this checkpoint from another without reading its data: config, file sizes, tensor tables."""
        config = json.dumps(self._raw_config, sort_keys=True).encode()
        return {
            "config_sha256": hashlib.sha256(config).hexdigest(),
            "files": [
                {"name": file.path.name, "nbytes": file.nbytes, "header_sha256": file.header_sha256}
                for file in self._set.files
            ],
        }

    def modified_ns(self) -> list[int]:
        """When each file of tensors was last written: training changes the weights, but not the identity."""
        return [file.modified_ns() for file in self._set.files]

    def dense(self, tensor: DenseTensor) -> SourceMatrix:
        """A tensor outside the routed experts; one of a single dimension is one row."""
        *leading, cols = tensor.source_shape
        return self._matrix(tensor.source, tensor.runs or (range(math.prod(leading)),), cols)

    def expert(self, layer: int, expert: int, part: Part) -> SourceMatrix:
        """One matrix of one expert, be it fused in the checkpoint or not."""
        rows, cols = part_shape(self.config, part)
        fused = fused_source(self.config, layer, part)
        if fused in self._names:
            first = expert * fused_shape(self.config, part)[1] + (rows if part is Part.UP else 0)
            return self._matrix(fused, (range(first, first + rows),), cols)
        return self._matrix(single_source(self.config, layer, expert, part), (range(rows),), cols)

    def expert_form(self, part: Part) -> Format:
        """The narrowest precision that holds this part of every expert exactly."""
        layers, experts = range(self.config.num_expert_layers), range(self.config.num_experts)
        forms = {self.expert(layer, expert, part).form for layer in layers for expert in experts}
        return forms.pop() if len(forms) == 1 else Format.F32

    def _matrix(self, name: str, runs: tuple[range, ...], cols: int) -> SourceMatrix:
        full_name = self._names[name]
        return SourceMatrix(self._set.tensors[full_name], full_name, runs, cols)

    def _has_mtp(self) -> bool:
        return any(name.startswith(MTP_PREFIX) for name in self._names)

    def _is_skipped(self, name: str) -> bool:
        kind = skipped_kind(name)
        return kind is not None and not (kind == "mtp" and self.config.num_mtp_layers)

    def _skipped(self) -> dict[str, dict[str, int]]:
        """Tensors of parts that the engine does not run, by kind: how many and how big."""
        skipped: dict[str, Counter[str]] = {}
        for name, file in self._set.tensors.items():
            if (kind := skipped_kind(name)) and self._is_skipped(name):
                counts = skipped.setdefault(kind, Counter(tensors=0, nbytes=0))
                counts.update(tensors=1, nbytes=file.tensors[name].nbytes)
        return {kind: dict(counts) for kind, counts in skipped.items()}

    def _check_tensors(self) -> None:
        expected = self._expected_shapes()
        problems = []
        if missing := expected.keys() - self._names.keys():
            problems.append(f"missing tensors {name_some(missing)}")
        if unknown := {self._names[n] for n in self._names.keys() - expected.keys() if not self._is_skipped(n)}:
            problems.append(f"unknown tensors {name_some(unknown)}")
        for name in sorted(expected.keys() & self._names.keys()):
            full_name = self._names[name]
            entry = self._set.tensors[full_name].tensors[full_name]
            if entry.shape != expected[name]:
                problems.append(f"{full_name} is {list(entry.shape)}; the config asks for {list(expected[name])}")
            elif entry.dtype not in DTYPES:
                problems.append(f"{full_name} is {entry.dtype}; supported: {', '.join(DTYPES)}")
        if problems:
            raise CheckpointError(f"{self.path}: " + "; ".join(problems[:4]))

    def _expected_shapes(self) -> dict[str, tuple[int, ...]]:
        config = self.config
        shapes = {tensor.source: tensor.source_shape for tensor in dense_tensors(config)}
        for layer in range(config.num_expert_layers):
            for part in Part:
                fused = fused_source(config, layer, part)
                if fused in self._names:
                    shapes[fused] = fused_shape(config, part)
                else:
                    names = (single_source(config, layer, expert, part) for expert in range(config.num_experts))
                    shapes |= dict.fromkeys(names, part_shape(config, part))
        return shapes


def _cut(runs: Iterable[range], start: int, count: int) -> Iterator[range]:
    """What rows `start` to `start + count` of all runs together are of each."""
    for run in runs:
        part = run[start : start + count]
        if part:
            yield part
        start, count = max(0, start - len(run)), count - len(part)


def _read_config(path: Path, config: dict[str, Any], generation: dict[str, Any]) -> ModelConfig:
    try:
        return ModelConfig.from_hf(config, generation)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
