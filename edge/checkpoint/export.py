"""A pack's weights as a Hugging Face checkpoint: what transformers runs is then exactly what the engine runs."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edge.checkpoint.hf_config import DTYPE_NAMES, write_config
from edge.checkpoint.layout import BLOCK_ALIGNMENT, Format, MatrixLayout
from edge.checkpoint.matrix import Matrix, aligned_zeros, dequantize_rows, expert_matrices, float_rows
from edge.checkpoint.names import Part, dense_tensors, fused_shape, fused_source, part_shape, single_source
from edge.checkpoint.pack import Pack, Progress
from edge.checkpoint.tensor_file import NewTensor, TensorFileWriter
from edge.checkpoint.tensor_set import SINGLE_FILE
from edge.errors import CheckpointError
from edge.quant.floats import STORED_DTYPES

PREFIX = "model."
ROWS_AT_ONCE = 1024


class Export:
    """Writes one checkpoint of type qwen3_5_moe_text.

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

        Raises: CheckpointError if `out` is in use or cannot be written, PackError for a damaged pack.
        """
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise CheckpointError(f"{out} exists and is not an empty directory")
        try:
            out.mkdir(parents=True, exist_ok=True)
            with (out / SINGLE_FILE).open("wb") as file:
                writer = TensorFileWriter(file, self._tensors)
                for data in self._data():
                    writer.write(data)
                    progress(data.nbytes)
                writer.finish()
            for tokenizer_file in self._pack.tokenizer_files():
                shutil.copyfile(tokenizer_file, out / tokenizer_file.name)
            dtype = DTYPE_NAMES[self._form(Part.GATE)]
            text = json.dumps(write_config(self._pack.config, dtype), indent=2)
            (out / "config.json").write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise CheckpointError(f"writing {out}: {error.strerror}") from error

    def _dense_form(self, layout: MatrixLayout | None) -> Format:
        return layout.format if self._stored and layout and not layout.format.is_quantized else Format.F32

    def _form(self, *parts: Part) -> Format:
        """Of a tensor that holds these parts of experts, which may be of different precision."""
        forms = {self._dense_form(getattr(self._pack.experts, part.value)) for part in parts}
        return forms.pop() if len(forms) == 1 else Format.F32

    def _table(self) -> Iterator[tuple[str, NewTensor]]:
        """In the order in which `_data` yields."""
        config, contents = self._pack.config, self._pack.manifest.contents
        for tensor, entry in zip(dense_tensors(config), contents.dense, strict=True):
            prefix = "" if tensor.name == "lm_head" else PREFIX
            yield prefix + tensor.source, NewTensor(self._dense_form(entry.layout), tensor.source_shape)
        for layer in range(config.num_layers):
            for parts in self._parts_together():
                form, part = self._form(*parts), parts[0]
                if self._single:
                    for expert in range(config.num_experts):
                        name = single_source(layer, expert, part)
                        yield PREFIX + name, NewTensor(form, part_shape(config, part))
                else:
                    yield PREFIX + fused_source(layer, part), NewTensor(form, fused_shape(config, part))

    def _parts_together(self) -> tuple[tuple[Part, ...], ...]:
        """Parts that follow each other expert by expert."""
        if self._single:
            return tuple((part,) for part in Part)
        return ((Part.GATE, Part.UP), (Part.DOWN,))

    def _data(self) -> Iterator[NDArray[Any]]:
        for _, tensor in self._pack.dense_tensors():
            if isinstance(tensor, Matrix):
                yield from _rows(tensor, self._dense_form(tensor.layout))
            else:
                yield tensor
        block = aligned_zeros(self._pack.experts.block_bytes, BLOCK_ALIGNMENT)
        matrices = dict(zip(Part, expert_matrices(self._pack.experts, block), strict=True))
        for layer in range(self._pack.config.num_layers):
            for parts in self._parts_together():
                for expert in range(self._pack.config.num_experts):
                    self._pack.read_expert(layer, expert, block)
                    for part in parts:
                        yield from _rows(matrices[part], self._form(*parts))


def _rows(matrix: Matrix, form: Format) -> Iterator[NDArray[Any]]:
    """A matrix in pieces: as stored if that is `form`, else as float32."""
    layout = matrix.layout
    for start in range(0, layout.rows, ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        if form is layout.format:
            yield float_rows(matrix)[rows].view(STORED_DTYPES[form])[:, : layout.cols]
        else:
            yield dequantize_rows(matrix, rows)
