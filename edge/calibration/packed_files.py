"""Puts what was calibrated where a pack has it, and says of each piece what the journal must know."""

from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np

from edge.calibration.errors import MatrixError, experts_line
from edge.calibration.experts import PackedExpert
from edge.calibration.layer_weights import DenseWeights
from edge.checkpoint.assembly import sync_file, write_pieces
from edge.checkpoint.contents import Contents, expert_file
from edge.checkpoint.layout import ExpertLayout
from edge.checkpoint.names import Part, layer_prefix
from edge.checkpoint.pack import Progress
from edge.checkpoint.source import Checkpoint
from edge.checkpoint.source_sizes import dense_bytes, expert_bytes
from edge.checkpoint.workspace import Workspace, sync_directory
from edge.kernels import crc32c


class PackedFiles:
    """The files of a pack in its workspace. `progress` is given the bytes of the checkpoint that were packed."""

    def __init__(
        self, checkpoint: Checkpoint, contents: Contents, workspace: Workspace, dense: BinaryIO, progress: Progress
    ) -> None:
        """`dense`: the file of the dense weights, of its full size."""
        self._checkpoint, self._contents, self._workspace = checkpoint, contents, workspace
        self._dense, self._progress = dense, progress

    def write_dense(self, weights: DenseWeights) -> dict[str, int]:
        """Put tensors where they belong, on disk; their checksums by name."""
        crcs = {}
        for entry, data in weights.stored():
            self._dense.seek(entry.offset)
            _, crcs[entry.name] = write_pieces(self._dense, [data])
        sync_file(self._dense)
        self._progress(dense_bytes(self._checkpoint, crcs))
        return crcs

    def write_experts(self, layer: int, layout: ExpertLayout, experts: Iterable[PackedExpert]) -> list[dict[str, Any]]:
        """A layer's file, noted as finished; the report on it."""
        crcs, errors, num_tokens = [], list[Mapping[Part, MatrixError]](), list[int]()
        path = self._workspace.path / expert_file(layer)
        with path.open("wb") as file:
            for index, expert in enumerate(experts):
                nbytes, crc = write_pieces(file, expert.pieces)
                padding = np.zeros(layout.block_bytes - nbytes, np.uint8)
                crcs.append(crc32c(padding, crc))
                file.write(padding.data)
                errors.append(expert.errors)
                num_tokens.append(expert.num_tokens)
                self._progress(expert_bytes(self._checkpoint, layer, index))
            sync_file(file)
        sync_directory(path.parent)
        self._workspace.finish(expert_file(layer), crcs)
        return [
            experts_line(
                f"{layer_prefix(self._contents.config, layer)}mlp.experts.{part.value}_proj",
                getattr(layout, part.value).format.name,
                [error[part] for error in errors],
                num_tokens,
            )
            for part in Part
        ]
