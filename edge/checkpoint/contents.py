"""What a pack holds and where: which tensor lies where in dense.bin, how experts are stored, which files there are."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from edge.checkpoint.layout import MATRIX_ALIGNMENT, ExpertLayout, Format, MatrixLayout, round_up
from edge.checkpoint.names import DenseTensor, Part, Role, dense_tensors, part_shape
from edge.checkpoint.precision import check_group, precision
from edge.config import ModelConfig

MANIFEST_FILE = "manifest.json"
DENSE_FILE = "dense.bin"
TOKENIZER_DIR = "tokenizer"


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
    bits: float  # one of precision.BITS
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


def plan_contents(
    config: ModelConfig,
    bits: float,
    group: int,
    dense_form: Callable[[DenseTensor], Format],
    expert_form: Callable[[Part], Format],
) -> Contents:
    """Place every tensor of a model. The forms are the source's own: what `bits` does not quantise keeps them.

    Raises: CheckpointError for bits or a group that no layout has.
    """
    choice = precision(bits)
    group = 0 if bits == 16 else check_group(group)

    def layout(form: Format | None, own: Format, shape: tuple[int, ...]) -> MatrixLayout:
        rows, cols = shape
        return MatrixLayout(form, rows, cols, group) if form else MatrixLayout(own, rows, cols)

    def dense(tensor: DenseTensor) -> MatrixLayout | None:
        if tensor.role is Role.VECTOR:
            return None
        return layout(choice.dense if tensor.role is Role.QUANTIZED else None, dense_form(tensor), tensor.shape)

    parts = {part.value: layout(choice.expert(part), expert_form(part), part_shape(config, part)) for part in Part}
    return Contents(config, choice.bits, group, tuple(_place(config, dense)), ExpertLayout(**parts))


def _place(config: ModelConfig, layout: Callable[[DenseTensor], MatrixLayout | None]) -> Iterator[DenseEntry]:
    offset = 0
    for tensor in dense_tensors(config):
        entry = DenseEntry(tensor.name, tensor.shape, layout(tensor), offset)
        yield entry
        offset = round_up(offset + entry.nbytes, MATRIX_ALIGNMENT)
