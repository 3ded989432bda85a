"""A pack's weights as a Hugging Face checkpoint: what transformers runs is then exactly what the engine runs."""

import json
import shutil
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edge.checkpoint.assembly import MANIFEST_ROOM, check_free
from edge.checkpoint.hf_config import DTYPE_NAMES, write_config
from edge.checkpoint.layout import BLOCK_ALIGNMENT, Format, MatrixLayout
from edge.checkpoint.matrix import Matrix, aligned_zeros, dequantize_rows, expert_matrices, float_rows
from edge.checkpoint.names import (
    DenseTensor,
    Part,
    dense_tensors,
    full_name,
    fused_shape,
    fused_source,
    part_shape,
    single_source,
)
from edge.checkpoint.pack import Pack, Progress, Tensor
from edge.checkpoint.tensor_file import NewTensor, TensorFileWriter
from edge.checkpoint.tensor_set import SINGLE_FILE
from edge.errors import CheckpointError
from edge.quant.floats import STORED_DTYPES

ROWS_AT_ONCE = 1024


class Export:
    """Writes one checkpoint of the text type of the pack's family.

    Matrices of floats keep their precision if `stored`, all else becomes float32, which holds every stored number
    exactly. Experts come fused, or one by one if `single`. Memory: one packed tensor, one expert, some rows.
    """

    def __init__(self, pack: Pack, *, stored: bool = False, single: bool = False) -> None:
        self._pack, self._stored, self._single = pack, stored, single
        self._tensors = dict(self._table())

    @property
    def nbytes(self) -> int:
        """What `write` will write."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def write(self, out: Path, progress: Progress) -> None:
        """Write into the new directory `out`. Without config.json, which comes last, nobody takes it for whole.

        What cannot be finished is removed, unless the process is killed.
        Raises: CheckpointError if `out` is in use or cannot be written, PackError for a damaged pack.
        """
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise CheckpointError(f"{out} exists and is not an empty directory")
        try:
            out.mkdir(parents=True, exist_ok=True)
            check_free(out, self.nbytes + MANIFEST_ROOM, out)
            self._write_files(out, progress)
        except BaseException as error:
            _discard(out)
            if isinstance(error, OSError):
                raise CheckpointError(f"writing {out}: {error.strerror}") from error
            raise

    def _write_files(self, out: Path, progress: Progress) -> None:
        with (out / SINGLE_FILE).open("wb") as file:
            writer = TensorFileWriter(file, self._tensors)
            for data in self._data():
                writer.write(data)
                progress(data.nbytes)
            writer.finish()
        for tokenizer_file in self._pack.tokenizer_files():
            shutil.copyfile(tokenizer_file, out / tokenizer_file.name)
        dtype = DTYPE_NAMES[self._main_form]
        text = json.dumps(write_config(self._pack.config, dtype), indent=2)
        (out / "config.json").write_text(text + "\n", encoding="utf-8")

    def _dense_form(self, layout: MatrixLayout | None) -> Format:
        return layout.format if self._stored and layout and not layout.format.is_quantized else Format.F32

    @property
    def _main_form(self) -> Format:
        """Of most of the weights."""
        if self._pack.config.num_experts:
            return self._form(Part.GATE)
        return self._dense_form(self._pack.manifest.contents.dense[0].layout)

    def _form(self, *parts: Part) -> Format:
        """Of a tensor that holds these parts of experts, which may be of different precision."""
        forms = {self._dense_form(getattr(self._pack.experts, part.value)) for part in parts}
        return forms.pop() if len(forms) == 1 else Format.F32

    def _table(self) -> Iterator[tuple[str, NewTensor]]:
        """In the order in which `_data` yields."""
        config, contents = self._pack.config, self._pack.manifest.contents
        for tensor, entry in zip(dense_tensors(config), contents.dense, strict=True):
            yield full_name(tensor.source), NewTensor(self._dense_form(entry.layout), tensor.source_shape)
        for layer in range(config.num_expert_layers):
            for parts in self._parts_together():
                form, part = self._form(*parts), parts[0]
                if self._single:
                    for expert in range(config.num_experts):
                        name = full_name(single_source(config, layer, expert, part))
                        yield name, NewTensor(form, part_shape(config, part))
                else:
                    name = full_name(fused_source(config, layer, part))
                    yield name, NewTensor(form, fused_shape(config, part))

    def _parts_together(self) -> tuple[tuple[Part, ...], ...]:
        """Parts that follow each other expert by expert."""
        if self._single:
            return tuple((part,) for part in Part)
        return ((Part.GATE, Part.UP), (Part.DOWN,))

    def _data(self) -> Iterator[NDArray[Any]]:
        pairs = zip(dense_tensors(self._pack.config), self._pack.dense_tensors(), strict=True)
        for _, together in groupby(pairs, key=lambda pair: pair[0].source):
            yield from self._source_tensor([(tensor, stored) for tensor, (_, stored) in together])
        if self._pack.config.num_experts:
            yield from self._expert_data()

    def _source_tensor(self, parts: list[tuple[DenseTensor, Tensor]]) -> Iterator[NDArray[Any]]:
        """A tensor of the checkpoint from those of the pack that hold its rows."""
        runs = []
        for tensor, stored in parts:
            if not isinstance(stored, Matrix):
                yield stored
                continue
            first = 0
            for run in tensor.runs or (range(stored.layout.rows),):
                runs.append((run.start, stored, range(first, first + len(run))))
                first += len(run)
        for _, matrix, rows in sorted(runs, key=itemgetter(0)):
            yield from _rows(matrix, rows, self._dense_form(matrix.layout))

    def _expert_data(self) -> Iterator[NDArray[Any]]:
        block = aligned_zeros(self._pack.experts.block_bytes, BLOCK_ALIGNMENT)
        matrices = dict(zip(Part, expert_matrices(self._pack.experts, block), strict=True))
        for layer in range(self._pack.config.num_expert_layers):
            for parts in self._parts_together():
                for expert in range(self._pack.config.num_experts):
                    self._pack.read_expert(layer, expert, block)
                    for part in parts:
                        matrix = matrices[part]
                        yield from _rows(matrix, range(matrix.layout.rows), self._form(*parts))


def _discard(out: Path) -> None:
    """Remove what was written into a directory that was empty or not there."""
    if out.is_dir():
        for file in out.iterdir():
            file.unlink()
        out.rmdir()


def _rows(matrix: Matrix, rows: range, form: Format) -> Iterator[NDArray[Any]]:
    """Some rows of a matrix in pieces: as stored if that is `form`, else as float32."""
    for start in range(rows.start, rows.stop, ROWS_AT_ONCE):
        piece = slice(start, min(start + ROWS_AT_ONCE, rows.stop))
        if form is matrix.layout.format:
            yield float_rows(matrix)[piece].view(STORED_DTYPES[form])[:, : matrix.layout.cols]
        else:
            yield dequantize_rows(matrix, piece)
