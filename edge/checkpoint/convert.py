"""From a Hugging Face checkpoint to a pack: bounded memory, resumable, nothing visible until all of it is there."""

import shutil
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edge.calibration.conversion import SCRATCH_DIR, CalibratedWeights, scratch_bytes
from edge.calibration.corpus import Corpus, read_corpus
from edge.checkpoint.assembly import (
    check_room,
    data_files,
    explained_io,
    forget_altered_files,
    sync_file,
    write_manifest,
)
from edge.checkpoint.contents import DENSE_FILE, TOKENIZER_DIR, TOKENIZER_FILES, plan_contents
from edge.checkpoint.disk import file_crc
from edge.checkpoint.layout import VERSION, Format
from edge.checkpoint.manifest import Calibration, Manifest, TokenizerFile
from edge.checkpoint.pack import Progress
from edge.checkpoint.precision import CALIBRATION_TOKENS, check_group, precision
from edge.checkpoint.rounding import RoundedWeights
from edge.checkpoint.source import Checkpoint
from edge.checkpoint.source_sizes import dense_bytes, layer_bytes
from edge.checkpoint.workspace import Workspace, sync_directory
from edge.errors import CalibrationError, CheckpointError


class Conversion:
    """One conversion, from opening the checkpoint to the finished pack. Use as a context, then `run`.

    Works on all cores. Memory: some pieces of a few megabytes for each of them, whatever the model's size; with
    calibration, as CalibratedWeights says.
    Raises: CheckpointError for whatever is wrong with source, target or options, CalibrationError for the text.
    """

    def __init__(
        self,
        source: Path,
        out: Path,
        *,
        bits: float = 16,
        group: int = 64,
        sensitive_bits: int = 8,
        calibration: Path | None = None,
        calibration_tokens: int = CALIBRATION_TOKENS,
        force: bool = False,
    ) -> None:
        """`calibration`: text to quantise for, of which so many tokens are used; None: round to nearest."""
        self._source, self._out = source, out
        self._bits, self._group, self._force = precision(bits, sensitive_bits).bits, check_group(group), force
        self._sensitive_bits, self._text, self._max_tokens = sensitive_bits, calibration, calibration_tokens
        self._calibration: Calibration | None = None
        if calibration and bits == 16:
            raise CalibrationError("16 bits lose nothing: there is nothing to calibrate; choose fewer with --bits")

    def __enter__(self) -> Self:
        with ExitStack() as stack, explained_io(self._out):
            self._checkpoint = stack.enter_context(closing(Checkpoint(self._source)))
            self.contents = plan_contents(
                self._checkpoint.config,
                self._bits,
                self._group,
                lambda tensor: self._checkpoint.dense(tensor).form,
                self._checkpoint.expert_form,
                self._sensitive_bits,
            )
            corpus = self._read_corpus()
            self._modified_ns = self._checkpoint.modified_ns()
            key = {
                "version": VERSION,
                "source": self._checkpoint.identity(),
                "source_modified_ns": self._modified_ns,
                "bits": self._bits,
                "group": self.contents.group,
                "sensitive_bits": self._sensitive_bits,
                "calibration": asdict(self._calibration) if self._calibration else None,
            }
            self._workspace = stack.enter_context(Workspace(self._out, key, force=self._force))
            forget_altered_files(self._workspace, data_files(self.contents))
            files = data_files(self.contents)
            self._weights: RoundedWeights | CalibratedWeights
            if corpus is None:
                self._weights = RoundedWeights(self._checkpoint, self.contents, self._workspace)
            else:
                self._weights = CalibratedWeights(self._checkpoint, self.contents, self._workspace, corpus)
                files[SCRATCH_DIR] = scratch_bytes(self.contents.config, corpus.num_tokens)
            check_room(self._workspace, files, self._out)
            self._closing = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.__exit__(kind, error, trace)

    @property
    def source_bytes(self) -> int:
        """Bytes of the checkpoint that go into the pack."""
        layers = range(len(self.contents.expert_files))
        return dense_bytes(self._checkpoint) + sum(layer_bytes(self._checkpoint, layer) for layer in layers)

    @property
    def finished_bytes(self) -> int:
        """Of these, what an earlier run that was stopped has finished."""
        return self._weights.finished_bytes

    @property
    def report(self) -> list[dict[str, Any]]:
        """The error of every matrix that was calibrated, once it has run; see edge/calibration/errors.py."""
        return self._weights.lines if isinstance(self._weights, CalibratedWeights) else []

    @property
    def notes(self) -> list[str]:
        """What the person converting should know."""
        layouts = [entry.layout for entry in self.contents.dense if entry.layout]
        notes = [
            f"skips the {kind} part: {counts['tensors']} tensors, {counts['nbytes']} bytes"
            for kind, counts in self._checkpoint.skipped.items()
        ]
        if self._checkpoint.lacks_mtp:
            notes.append("config.json has an MTP layer, the checkpoint no tensor of it: nothing will be drafted")
        if self.contents.experts:
            layouts.append(self.contents.experts.gate)
        if self._bits == 16 and any(layout.format is Format.F32 for layout in layouts):
            notes.append("float32 weights stay float32: twice the size of 16 bits, nothing is lost")
        if not (self._source / "tokenizer.json").is_file():
            notes.append("the checkpoint has no tokenizer.json: the model will work with token ids only")
        return notes

    def run(self, progress: Progress) -> None:
        """Do what is left to do. `progress` is given the source bytes packed since its last call."""
        path = self._workspace.path
        with explained_io(self._out):
            (path / "layers").mkdir(exist_ok=True)
            self._weights.run(progress)
            self._check_source()
            self._write_manifest(self._copy_tokenizer(path / TOKENIZER_DIR))
            self._workspace.publish()

    def _read_corpus(self) -> Corpus | None:
        """None without calibration."""
        if self._text is None:
            return None
        corpus = read_corpus(self._text, self._source, self.contents.config.vocab_size, self._max_tokens)
        self._calibration = Calibration(corpus.sha256, corpus.num_tokens)
        return corpus

    def _check_source(self) -> None:
        """Weights of two states of a model would make none. The next run, which sees other times, begins anew."""
        if self._checkpoint.modified_ns() != self._modified_ns:
            raise CheckpointError(f"{self._source}: written to while it was converted; run again once it is whole")

    def _copy_tokenizer(self, target: Path) -> tuple[TokenizerFile, ...]:
        shutil.rmtree(target, ignore_errors=True)  # of an earlier run, when other files may have been there to copy
        target.mkdir()
        copied = []
        for name in TOKENIZER_FILES:
            if (self._source / name).is_file():
                shutil.copyfile(self._source / name, target / name)
                with (target / name).open("rb+") as file:
                    sync_file(file)
                copied.append(TokenizerFile(name, *file_crc(target / name)))
        sync_directory(target)
        return tuple(copied)

    def _write_manifest(self, tokenizer: tuple[TokenizerFile, ...]) -> None:
        finished = self._workspace.finished
        manifest = Manifest(
            name=model_name(self._source),
            contents=self.contents,
            dense_crcs=tuple(finished[DENSE_FILE]),
            expert_crcs=tuple(tuple(finished[file]) for file in self.contents.expert_files),
            tokenizer=tokenizer,
            source=self._checkpoint.identity(),
            skipped=self._checkpoint.skipped,
            calibration=self._calibration,
        )
        write_manifest(self._workspace, manifest)


def model_name(source: Path) -> str:
    """The checkpoint's directory; in a Hugging Face cache, where that is a hash, the model's: models--ORG--NAME."""
    directory = source.resolve()
    if directory.parent.name == "snapshots":
        return directory.parent.parent.name.rpartition("--")[2]
    return directory.name
