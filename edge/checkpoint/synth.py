"""A pack of random weights of a real model's shape, made without a checkpoint: something to measure with."""

import hashlib
import json
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from edge.checkpoint.assembly import (
    check_room,
    explained_io,
    forget_altered_files,
    sync_file,
    write_manifest,
)
from edge.checkpoint.contents import DENSE_FILE, expert_file, plan_contents
from edge.checkpoint.layout import BLOCK_ALIGNMENT, RUN_COLUMNS, VERSION, ExpertLayout, Format
from edge.checkpoint.manifest import Manifest
from edge.checkpoint.matrix import aligned_zeros
from edge.checkpoint.pack import Progress
from edge.checkpoint.synth_weights import SynthWeights
from edge.checkpoint.workspace import Workspace, sync_directory
from edge.config import ModelConfig
from edge.errors import CheckpointError
from edge.kernels import crc32c

SOURCE_FORM = Format.BF16  # of what is not quantised, as in the real checkpoints


@dataclass(frozen=True, slots=True)
class SynthOptions:
    """What to make. `distinct_layers` layers have expert files of their own; the others are hard links to these."""

    name: str
    config: ModelConfig
    bits: float = 4
    group: int = RUN_COLUMNS  # columns that share a scale and a bias
    distinct_layers: int | None = None  # None: all
    is_skewed: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.config.num_experts and (self.distinct_layers is not None or self.is_skewed):
            raise CheckpointError(f"{self.name} is dense: it has no experts to link to others' files or to route to")
        most = len(self.config.all_layer_types)
        if self.distinct_layers is not None and not 1 <= self.distinct_layers <= most:
            raise CheckpointError(f"{self.distinct_layers} distinct layers; possible: 1 to {most}")
        if self.seed < 0:
            raise CheckpointError(f"seed {self.seed}; must not be negative")

    @property
    def num_expert_files(self) -> int:
        """Files of experts that differ; 0 in a dense model."""
        return min(self.distinct_layers or self.config.num_expert_layers, self.config.num_expert_layers)


class Synthesis:
    """One making of a pack. Use as a context, then `run`. The same options give the same bytes.

    A run that was stopped goes on where it was; OUT appears when all of it is there. Memory: some 50 MB.
    Raises: CheckpointError for whatever is wrong with target or options.
    """

    def __init__(self, out: Path, options: SynthOptions, *, force: bool = False) -> None:
        self._out, self._options, self._force = out, options, force
        self._config = options.config
        self.contents = plan_contents(
            self._config, options.bits, options.group, lambda _: SOURCE_FORM, lambda _: SOURCE_FORM
        )
        self._weights = SynthWeights(self._config, options.seed, is_skewed=options.is_skewed)

    def __enter__(self) -> Self:
        options = self._options
        key = {
            "version": VERSION,
            "synthetic": options.name,
            "config": self._config.to_json(),
            "bits": options.bits,
            "group": options.group,
            "distinct_layers": options.num_expert_files,
            "is_skewed": options.is_skewed,
            "seed": options.seed,
        }
        with ExitStack() as stack, explained_io(self._out):
            self._workspace = stack.enter_context(Workspace(self._out, key, force=self._force))
            forget_altered_files(self._workspace, self._distinct_files())
            check_room(self._workspace, self._distinct_files(), self._out)
            self._closing = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.__exit__(kind, error, trace)

    @property
    def nbytes(self) -> int:
        """What the pack takes on disk: linked files counted once."""
        return sum(self._distinct_files().values())

    @property
    def finished_bytes(self) -> int:
        """Of these, what an earlier run that was stopped has finished."""
        return sum(nbytes for file, nbytes in self._distinct_files().items() if file in self._workspace.finished)

    def run(self, progress: Progress) -> None:
        """Do what is left to do. `progress` is given the bytes written since its last call."""
        path, finished = self._workspace.path, self._workspace.finished
        with explained_io(self._out):
            (path / "layers").mkdir(exist_ok=True)
            if DENSE_FILE not in finished:
                self._workspace.finish(DENSE_FILE, self._write_dense(path / DENSE_FILE, progress))
            if self.contents.experts:
                for layer in range(self._options.num_expert_files):
                    if (file := expert_file(layer)) not in finished:
                        crcs = self._write_layer(layer, self.contents.experts, path / file, progress)
                        self._workspace.finish(file, crcs)
                self._link_other_layers()
            write_manifest(self._workspace, self._manifest())
            self._workspace.publish()

    def _distinct_files(self) -> dict[str, int]:
        layers = range(self._options.num_expert_files)
        experts = dict.fromkeys(map(expert_file, layers), self.contents.expert_file_nbytes)
        return {DENSE_FILE: self.contents.dense_nbytes, **experts}

    def _write_dense(self, path: Path, progress: Progress) -> list[int]:
        """The checksums of the dense tensors."""
        entries, crcs = self.contents.dense, []
        ends = [*(entry.offset for entry in entries[1:]), self.contents.dense_nbytes]
        with path.open("wb") as file:
            file.truncate(self.contents.dense_nbytes)  # gaps read as zero
            for index, (entry, end) in enumerate(zip(entries, ends, strict=True)):
                file.seek(entry.offset)
                crc = 0
                for piece in self._weights.dense(index, entry):
                    crc = crc32c(piece, crc)
                    file.write(piece.data)
                crcs.append(crc)
                progress(end - entry.offset)
            sync_file(file)
        return crcs

    def _write_layer(self, layer: int, layout: ExpertLayout, path: Path, progress: Progress) -> list[int]:
        """The checksums of the layer's experts."""
        crcs = []
        block = aligned_zeros(layout.block_bytes, BLOCK_ALIGNMENT)
        with path.open("wb") as file:
            for expert in range(self._config.num_experts):
                self._weights.fill_expert(block, layout, layer, expert)
                crcs.append(crc32c(block))
                file.write(block.data)
                progress(len(block))
            sync_file(file)
        sync_directory(path.parent)
        return crcs

    def _link_other_layers(self) -> None:
        directory, distinct = self._workspace.path, self._options.num_expert_files
        for layer in range(distinct, self._config.num_expert_layers):
            link = directory / expert_file(layer)
            link.unlink(missing_ok=True)  # of an earlier run
            os.link(directory / expert_file(layer % distinct), link)
        sync_directory(directory / "layers")

    def _manifest(self) -> Manifest:
        finished, distinct = self._workspace.finished, self._options.num_expert_files
        layers = range(len(self.contents.expert_files))
        config = json.dumps(self._config.to_json(), sort_keys=True).encode()
        return Manifest(
            name=self._options.name,
            contents=self.contents,
            dense_crcs=tuple(finished[DENSE_FILE]),
            expert_crcs=tuple(tuple(finished[expert_file(layer % distinct)]) for layer in layers),
            tokenizer=(),
            source={"config_sha256": hashlib.sha256(config).hexdigest(), "files": []},
            skipped={},
        )
