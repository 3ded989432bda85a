"""What a pack holds and where: which tensor lies where in dense.bin, how experts are stored, which files there are."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from edge.checkpoint.layout import MATRIX_ALIGNMENT, ExpertLayout, Format, MatrixLayout, round_up
from edge.checkpoint.names import DenseTensor, Part, Role, dense_tensors, part_shape
from edge.checkpoint.source import Checkpoint
from edge.config import ModelConfig

MANIFEST_FILE = "manifest.json"
DENSE_FILE = "dense.bin"
TOKENIZER_DIR = "tokenizer"
QUANTIZED_FORMATS = {8: Format.Q8, 4: Format.Q4, 3: Format.Q3, 2: Format.Q2}


def expert_file(layer: int) -> str:
    """The file of a layer's experts, from the pack's directory."""
    return f"layers/{layer:03d}.experts"


@dataclass(frozen=True, slots=True)
class DenseEntry:
    """A tensor in dense.bin. `layout` is None for a vector: float32 elements in `shape`."""

    name: str
    shape: tuple[int, ...]
    layout: MatrixLayout | None
    offset: int

    @property
    def nbytes(self) -> int:
        """Size in the file, the gap after it not counted."""
        return self.layout.nbytes if self.layout else 4 * math.prod(self.shape)


@dataclass(frozen=True)
class Contents:
    """Everything about a pack that follows from a config, a checkpoint's precisions and the choice of bits."""

    config: ModelConfig
    bits: int
    group: int  # 0 at 16 bits
    dense: tuple[DenseEntry, ...]
    experts: ExpertLayout

    @cached_property
    def dense_nbytes(self) -> int:
        """Size of dense.bin."""
        last = self.dense[-1]
        return round_up(last.offset + last.nbytes, MATRIX_ALIGNMENT)

    @cached_property
    def expert_file_nbytes(self) -> int:
        """Size of each layer's file."""
        return self.config.num_experts * self.experts.block_bytes

    @property
    def nbytes(self) -> int:
        """All model data together."""
        return self.dense_nbytes + self.config.num_layers * self.expert_file_nbytes


def plan_contents(checkpoint: Checkpoint, bits: int, group: int) -> Contents:
    """Place every tensor of a checkpoint. `bits` 16 keeps each one's own precision."""
    config = checkpoint.config
    group = 0 if bits == 16 else group
    experts = {part: _expert_layout(checkpoint, part, bits, group) for part in Part}
    layout = ExpertLayout(experts[Part.GATE], experts[Part.UP], experts[Part.DOWN])
    return Contents(config, bits, group, tuple(_place(checkpoint, bits, group)), layout)


def _place(checkpoint: Checkpoint, bits: int, group: int) -> Iterator[DenseEntry]:
    offset = 0
    for tensor in dense_tensors(checkpoint.config):
        entry = DenseEntry(tensor.name, tensor.shape, _dense_layout(checkpoint, tensor, bits, group), offset)
        yield entry
        offset = round_up(offset + entry.nbytes, MATRIX_ALIGNMENT)


def _dense_layout(checkpoint: Checkpoint, tensor: DenseTensor, bits: int, group: int) -> MatrixLayout | None:
    if tensor.role is Role.VECTOR:
        return None
    rows, cols = tensor.shape
    if tensor.role is Role.QUANTIZED and bits in QUANTIZED_FORMATS:
        return MatrixLayout(QUANTIZED_FORMATS[bits], rows, cols, group)
    return MatrixLayout(checkpoint.dense(tensor).form, rows, cols)


def _expert_layout(checkpoint: Checkpoint, part: Part, bits: int, group: int) -> MatrixLayout:
    rows, cols = part_shape(checkpoint.config, part)
    if bits in QUANTIZED_FORMATS:
        return MatrixLayout(QUANTIZED_FORMATS[bits], rows, cols, group)
    return MatrixLayout(checkpoint.expert_form(part), rows, cols)
