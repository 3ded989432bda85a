"""A whole model quantised by calibration, layer by layer, in a workspace: what a killed run finished is kept."""

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edge.calibration import streams as files
from edge.calibration.corpus import Corpus
from edge.calibration.errors import MatrixError, experts_line
from edge.calibration.experts import ExpertCalibration, PackedExpert
from edge.calibration.gathering import gathered
from edge.calibration.layer import calibrate_mixer, calibrate_mlp, normal_streams, normalise
from edge.calibration.layer_weights import DenseWeights
from edge.calibration.streams import Streams, blocks
from edge.checkpoint.assembly import size_of, sync_file, write_pieces
from edge.checkpoint.contents import DENSE_FILE, Contents, expert_file
from edge.checkpoint.layout import ExpertLayout
from edge.checkpoint.matrix import dequantize_rows
from edge.checkpoint.names import Part, dense_tensors
from edge.checkpoint.source import Checkpoint
from edge.checkpoint.workspace import Workspace, sync_directory
from edge.config import ModelConfig
from edge.kernels import crc32c
from edge.quant.curvature import Curvature, Moments

Floats = NDArray[np.float32]
Progress = Callable[[int], object]

SCRATCH_DIR = "calibration"  # in the workspace: the streams, gone when the pack is whole
EMBEDDING, NORM, HEAD = "embed_tokens", "norm", "lm_head"


class CalibratedWeights:
    """Writes a pack's dense weights and its layers' experts. The MTP layer's are not calibrated.

    Step 0 is the embedding, step n layer n - 1; each leaves the streams behind it and a note in the journal. Resumes
    behind the last step of an earlier run. Memory: some matrices of one layer and, per thread, of one expert.
    """

    def __init__(self, checkpoint: Checkpoint, contents: Contents, workspace: Workspace, corpus: Corpus) -> None:
        self._checkpoint, self._contents, self._workspace, self._corpus = checkpoint, contents, workspace, corpus
        self._config = contents.config
        self._scratch = workspace.path / SCRATCH_DIR
        self._num_finished = self._check_finished()

    @property
    def finished_bytes(self) -> int:
        """Of the checkpoint's dense weights, those that an earlier run has finished."""
        if DENSE_FILE in self._workspace.finished:
            return self._dense_bytes(None)
        return self._dense_bytes({name for step in range(self._num_finished) for name in self._note(step)["dense"]})

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The report so far."""
        notes = (self._note(step) for step in range(self._num_finished))
        return [line for note in notes for line in note["lines"]]

    def run(self, progress: Progress) -> None:
        """Do what is left to do. `progress` is given the source bytes packed since its last call."""
        if DENSE_FILE not in self._workspace.finished:
            self._scratch.mkdir(exist_ok=True)
            with (self._workspace.path / DENSE_FILE).open("r+b" if self._num_finished else "w+b") as file:
                file.truncate(self._contents.dense_nbytes)  # gaps read as zero
                for step in range(self._num_finished, self._config.num_layers + 2):
                    note = self._step(step, file, progress)
                    sync_file(file)
                    self._workspace.finish(_name(step), note | {"streams": self._keep(step)})
                    files.remove(self._scratch, str(step - 1))
                    self._num_finished = step + 1
            crcs = {name: crc for step in range(self._num_finished) for name, crc in self._note(step)["dense"].items()}
            self._workspace.finish(DENSE_FILE, [crcs[entry.name] for entry in self._contents.dense])
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _step(self, step: int, file: BinaryIO, progress: Progress) -> dict[str, Any]:
        """What its note says, but for the streams."""
        if step == 0:
            return self._embedding(file, progress)
        if step <= self._config.num_layers:
            return self._layer(step - 1, file, progress)
        return self._end(file, progress)

    def _embedding(self, file: BinaryIO, progress: Progress) -> dict[str, Any]:
        weights = DenseWeights(self._checkpoint, self._contents, {EMBEDDING})
        weights.pack_plainly()
        wanted, given = weights.matrices(EMBEDDING)
        streams = self._streams(0)
        ids = np.concatenate([np.asarray(sequence, np.int64) for sequence in self._corpus.sequences])
        for rows in blocks(len(ids)):
            streams.wanted[rows], streams.given[rows] = (
                dequantize_rows(wanted, ids[rows]),
                dequantize_rows(given, ids[rows]),
            )
        return self._write(weights, file, progress)

    def _layer(self, layer: int, file: BinaryIO, progress: Progress) -> dict[str, Any]:
        config, kind = self._config, self._config.layer_types[layer]
        section = f"layers.{layer}"
        weights = DenseWeights(self._checkpoint, self._contents, {section}, f"{section}.")
        before, streams = self._reopened(layer), self._streams(layer + 1)
        for rows in blocks(len(before.given)):
            streams.wanted[rows], streams.given[rows] = before.wanted[rows], before.given[rows]
        calibrate_mixer(config, kind, weights, streams, self._corpus.sequences, self._scratch)
        normal, moments = normal_streams(config, streams, weights.vector("post_attention_layernorm"), self._scratch)
        if config.mlp_size or config.shared_expert_size:
            place, scale = ("mlp.", None) if config.mlp_size else ("mlp.shared_expert.", "mlp.shared_expert_gate")
            calibrate_mlp(weights, place, scale, normal, Curvature(moments), streams)
        note = self._write(weights, file, progress)
        if self._contents.experts:
            router, _ = weights.matrices("mlp.gate")
            experts = ExpertCalibration(self._checkpoint, layer, self._contents.experts, router, normal, moments)
            note["lines"] += self._write_experts(layer, self._contents.experts, experts.run(streams), progress)
        files.remove(self._scratch, "normal")
        return note

    def _end(self, file: BinaryIO, progress: Progress) -> dict[str, Any]:
        """The last norm, the head, and what is not calibrated."""
        rest = {tensor.section for tensor in dense_tensors(self._config) if not tensor.name.startswith("layers.")}
        weights = DenseWeights(self._checkpoint, self._contents, rest - {EMBEDDING})
        if not self._config.tie_embeddings:
            weights.pack(HEAD, Curvature(self._head_moments(weights.vector(NORM))))
        weights.pack_plainly()
        return self._write(weights, file, progress)

    def _head_moments(self, norm: Floats) -> Moments:
        streams = self._reopened(self._config.num_layers)

        def inputs(rows: slice) -> tuple[Floats, Floats]:
            return normalise(self._config, streams.given[rows], norm), normalise(
                self._config, streams.wanted[rows], norm
            )

        return gathered(len(streams.given), inputs)

    def _write(self, weights: DenseWeights, file: BinaryIO, progress: Progress) -> dict[str, Any]:
        """Put packed tensors where they belong; the beginning of a step's note."""
        crcs = {}
        for entry, data in weights.stored():
            file.seek(entry.offset)
            _, crcs[entry.name] = write_pieces(file, [data])
        progress(self._dense_bytes(crcs))
        return {"dense": crcs, "lines": weights.lines}

    def _write_experts(
        self, layer: int, layout: ExpertLayout, experts: Iterable[PackedExpert], progress: Progress
    ) -> list[dict[str, Any]]:
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
                progress(sum(self._checkpoint.expert(layer, index, part).nbytes for part in Part))
            sync_file(file)
        sync_directory(path.parent)
        self._workspace.finish(expert_file(layer), crcs)
        return [
            experts_line(
                f"layers.{layer}.mlp.experts.{part.value}_proj",
                getattr(layout, part.value).format.name,
                [error[part] for error in errors],
                num_tokens,
            )
            for part in Part
        ]

    def _streams(self, step: int) -> Streams:
        return files.create(self._scratch, str(step), self._corpus.num_tokens, self._config.hidden_size)

    def _reopened(self, step: int) -> Streams:
        return files.reopen(self._scratch, str(step), self._corpus.num_tokens, self._config.hidden_size)

    def _keep(self, step: int) -> list[list[int]]:
        """Put the streams behind a step on disk: their sizes and checksums."""
        if step > self._config.num_layers:
            return []
        for path in files.paths(self._scratch, str(step)):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_directory(self._scratch)
        return files.checksums(self._scratch, str(step))

    def _note(self, step: int) -> dict[str, Any]:
        note: dict[str, Any] = self._workspace.finished[_name(step)]
        return note

    def _dense_bytes(self, names: Collection[str] | None) -> int:
        """In the checkpoint, of all dense tensors or of some."""
        tensors = dense_tensors(self._config)
        return sum(self._checkpoint.dense(t).nbytes for t in tensors if names is None or t.name in names)

    def _check_finished(self) -> int:
        """The steps that need not be done again; what follows them is forgotten."""
        finished = self._workspace.finished
        steps = range(self._config.num_layers + 2)
        num_finished = next((step for step in steps if not self._is_finished(step)), len(steps))
        if num_finished < len(steps) or DENSE_FILE not in finished:
            finished.pop(DENSE_FILE, None)
            num_finished = num_finished if num_finished and self._can_go_on(num_finished - 1) else 0
        for step in steps[num_finished:]:
            finished.pop(_name(step), None)
            if 0 < step <= self._config.num_layers:
                finished.pop(expert_file(step - 1), None)
        return num_finished

    def _is_finished(self, step: int) -> bool:
        is_layer = 0 < step <= self._config.num_layers and self._contents.experts is not None
        files_of_step = {_name(step), expert_file(step - 1)} if is_layer else {_name(step)}
        return files_of_step <= self._workspace.finished.keys()

    def _can_go_on(self, step: int) -> bool:
        """Whether the dense weights so far and the streams behind the step are as they were left."""
        if size_of(self._workspace.path / DENSE_FILE) != self._contents.dense_nbytes:
            return False
        return (
            step > self._config.num_layers or files.checksums(self._scratch, str(step)) == self._note(step)["streams"]
        )


def _name(step: int) -> str:
    return f"{SCRATCH_DIR}/{step}"


def scratch_bytes(config: ModelConfig, num_tokens: int) -> int:
    """Of the files beside the pack while it is made: two pairs of streams, and a pair of what is inside a layer."""
    attention = config.num_attention_heads * config.head_dim
    widest = max(config.hidden_size, attention, config.num_value_heads * config.value_head_dim)
    return 4 * num_tokens * (4 * config.hidden_size + 2 * widest)
