"""A whole model quantised by calibration, layer by layer, in a workspace: what a killed run finished is kept."""

import os
import shutil
from typing import Any

from threadpoolctl import threadpool_limits

from edge.calibration import streams as files
from edge.calibration.corpus import Corpus
from edge.calibration.layer_weights import DenseWeights
from edge.calibration.packed_files import PackedFiles
from edge.calibration.passage import NORM, Packed, Passage
from edge.calibration.streams import Streams, blocks
from edge.checkpoint.assembly import size_of
from edge.checkpoint.contents import DENSE_FILE, Contents
from edge.checkpoint.pack import Progress
from edge.checkpoint.source import Checkpoint
from edge.checkpoint.source_sizes import dense_bytes, layer_bytes
from edge.checkpoint.workspace import Workspace, sync_directory
from edge.config import ModelConfig

SCRATCH_DIR = "calibration"  # in the workspace: the streams, gone when the pack is whole


class CalibratedWeights:
    """Writes a pack's dense weights and its experts.

    Step 0 is the embedding, step n layer n - 1, the last one the head and the MTP layer; each leaves the streams behind
    it and a note in the journal. Resumes behind the last step of an earlier run. Memory: the dense weights of one layer
    and, per thread, some matrices of one expert and of the size of its Hessian.
    """

    def __init__(self, checkpoint: Checkpoint, contents: Contents, workspace: Workspace, corpus: Corpus) -> None:
        self._checkpoint, self._contents, self._workspace, self._corpus = checkpoint, contents, workspace, corpus
        self._config = contents.config
        self._scratch = workspace.path / SCRATCH_DIR
        self._num_finished = self._check_finished()

    @property
    def finished_bytes(self) -> int:
        """Of the checkpoint, what an earlier run that was stopped has finished."""
        steps = range(self._num_finished)
        names = {name for step in steps for name in self._note(step)["dense"]}
        layers = [step - 1 for step in steps if self._files(step) > {_name(step)}]
        return dense_bytes(self._checkpoint, names) + sum(layer_bytes(self._checkpoint, layer) for layer in layers)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The report so far."""
        notes = (self._note(step) for step in range(self._num_finished))
        return [line for note in notes for line in note["lines"]]

    def run(self, progress: Progress) -> None:
        """Do what is left to do. `progress` is given the source bytes packed since its last call."""
        # Jobs run on all cores already, and a sum must not depend on how many threads BLAS would share it among.
        with threadpool_limits(1, user_api="blas"):
            self._run_steps(progress)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _run_steps(self, progress: Progress) -> None:
        if DENSE_FILE in self._workspace.finished:
            return
        self._scratch.mkdir(exist_ok=True)
        with (self._workspace.path / DENSE_FILE).open("r+b" if self._num_finished else "w+b") as file:
            file.truncate(self._contents.dense_nbytes)  # gaps read as zero
            packed = PackedFiles(self._checkpoint, self._contents, self._workspace, file, progress)
            for step in range(self._num_finished, self._num_steps):
                note = self._step(step, packed)
                self._workspace.finish(_name(step), note | {"streams": self._keep(step)})
                files.remove(self._scratch, str(step - 1))
                self._num_finished = step + 1
        crcs = {name: crc for step in range(self._num_steps) for name, crc in self._note(step)["dense"].items()}
        self._workspace.finish(DENSE_FILE, [crcs[entry.name] for entry in self._contents.dense])

    def _step(self, step: int, packed: PackedFiles) -> dict[str, Any]:
        """What its note says, but for the streams."""
        passage = Passage(self._checkpoint, self._contents, self._scratch)
        sequences, num_layers = self._corpus.sequences, self._config.num_layers
        if step == 0:
            return _noted(passage.embed(sequences, self._streams(0)), packed)
        before = self._reopened(step - 1)
        if step <= num_layers:
            streams = self._streams(step)
            for rows in blocks(len(before.given)):
                streams.wanted[rows], streams.given[rows] = before.wanted[rows], before.given[rows]
            return self._layer(step - 1, passage.layer(step - 1, sequences, streams), packed)
        head = passage.head(before)
        note = _noted(head, packed)
        if self._config.num_mtp_layers:
            mtp = self._layer(num_layers, passage.mtp(head.vector(NORM), sequences, before), packed)
            note = {key: value | mtp[key] if key == "dense" else value + mtp[key] for key, value in note.items()}
        return note

    def _layer(self, layer: int, calibrated: Packed, packed: PackedFiles) -> dict[str, Any]:
        weights, experts = calibrated
        note = _noted(weights, packed)
        if self._contents.experts:
            note["lines"] += packed.write_experts(layer, self._contents.experts, experts)
        files.remove(self._scratch, "normal")
        return note

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

    @property
    def _num_steps(self) -> int:
        """The embedding, the layers, and what comes behind them."""
        return self._config.num_layers + 2

    def _check_finished(self) -> int:
        """The steps that need not be done again; what follows them is forgotten."""
        finished, steps = self._workspace.finished, range(self._num_steps)
        num_finished = next((step for step in steps if not self._files(step) <= finished.keys()), len(steps))
        if num_finished < len(steps) or DENSE_FILE not in finished:
            finished.pop(DENSE_FILE, None)
            num_finished = num_finished if num_finished and self._can_go_on(num_finished - 1) else 0
        for step in steps[num_finished:]:
            for file in self._files(step):
                finished.pop(file, None)
        return num_finished

    def _files(self, step: int) -> set[str]:
        """What the journal names once a step is done: its experts' file if it has one, and itself."""
        files_of_experts = self._contents.expert_files[step - 1 : step] if step else ()
        return {_name(step), *files_of_experts}

    def _can_go_on(self, step: int) -> bool:
        """Whether the dense weights so far and the streams behind the step are as they were left."""
        if size_of(self._workspace.path / DENSE_FILE) != self._contents.dense_nbytes:
            return False
        return (
            step > self._config.num_layers or files.checksums(self._scratch, str(step)) == self._note(step)["streams"]
        )


def _name(step: int) -> str:
    return f"{SCRATCH_DIR}/{step}"


def _noted(weights: DenseWeights, packed: PackedFiles) -> dict[str, Any]:
    """Put them in their file; the checksums and the report."""
    return {"dense": packed.write_dense(weights), "lines": weights.lines}


def scratch_bytes(config: ModelConfig, num_tokens: int) -> int:
    """Of the files beside the pack while it is made: two pairs of streams, and a pair of what is inside a layer."""
    attention = config.num_attention_heads * config.head_dim
    widest = max(config.hidden_size, attention, config.num_value_heads * config.value_head_dim)
    return 4 * num_tokens * (4 * config.hidden_size + 2 * widest)
