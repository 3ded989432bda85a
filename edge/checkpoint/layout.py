"""Where every byte of a packed model lies: the only place that knows offsets and sizes.

A matrix is stored row-major. Floats: rows × padded_cols elements, little-endian, padding columns zero.
Quantised: three sections, each starting at a multiple of 64 bytes: unsigned codes, then fp16 scales [rows, groups],
then fp16 biases [rows, groups]; a weight is scale * code + bias of its row's group. 8 bits: one byte per column.
4 bits: 16 bytes per 32 columns, byte j holding column j in its low and column j + 16 in its high half. Padding columns
have code 0 and are never multiplied.
An expert is one block: gate, up, down, each at a multiple of 64 bytes; expert e of a layer's file starts at
e * block_bytes, a multiple of 4096 so that O_DIRECT can read it.
"""

import enum
from dataclasses import dataclass
from functools import cached_property

VERSION = 1

SECTION_ALIGNMENT = 64  # a cache line, and the widest vector register
BLOCK_ALIGNMENT = 4096  # what O_DIRECT asks of offsets, lengths and addresses
FLOAT_COLUMNS = 16  # padding of float rows: one AVX-512 register of f32
CODE_COLUMNS = 32  # 4-bit codes are interleaved in runs of this many columns


class Format(enum.IntEnum):
    """How a matrix's elements are stored. The numbers are part of the native interface."""

    F32 = 0
    F16 = 1
    BF16 = 2
    Q8 = 3
    Q4 = 4

    @property
    def is_quantized(self) -> bool:
        """Whether elements are codes with a scale and a bias per group."""
        return self >= Format.Q8

    @property
    def bits(self) -> int:
        """Bits per element or code, scales and biases not counted."""
        return {Format.F32: 32, Format.F16: 16, Format.BF16: 16, Format.Q8: 8, Format.Q4: 4}[self]


def round_up(value: int, multiple: int) -> int:
    """The least multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple


@dataclass(frozen=True)
class MatrixLayout:
    """A stored [rows, cols] matrix. `group`: columns that share a scale and a bias, 0 for float formats."""

    format: Format
    rows: int
    cols: int
    group: int = 0

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1:
            raise ValueError(f"a matrix of [{self.rows}, {self.cols}]; both must be at least 1")
        if self.format.is_quantized and (self.group < CODE_COLUMNS or self.group % CODE_COLUMNS):
            raise ValueError(f"group {self.group} of {self.format.name}; must be a positive multiple of {CODE_COLUMNS}")
        if not self.format.is_quantized and self.group:
            raise ValueError(f"group {self.group} of {self.format.name}; float formats have none (0)")

    @cached_property
    def padded_cols(self) -> int:
        """Columns stored per row."""
        return round_up(self.cols, self.group or FLOAT_COLUMNS)

    @cached_property
    def num_groups(self) -> int:
        """Scales per row; 0 for float formats."""
        return self.padded_cols // self.group if self.group else 0

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one row in the first section: its codes or its floats."""
        return self.padded_cols * self.format.bits // 8

    @property
    def codes_offset(self) -> int:
        """Start of the codes or the floats."""
        return 0

    @cached_property
    def scales_offset(self) -> int:
        """Start of the scales, which is also the end of a float matrix."""
        return round_up(self.rows * self.row_bytes, SECTION_ALIGNMENT)

    @cached_property
    def biases_offset(self) -> int:
        """Start of the biases."""
        return self.scales_offset + self._scales_bytes

    @cached_property
    def nbytes(self) -> int:
        """Size with padding, a multiple of 64."""
        return self.biases_offset + self._scales_bytes

    @property
    def _scales_bytes(self) -> int:
        return round_up(self.rows * self.num_groups * 2, SECTION_ALIGNMENT)


@dataclass(frozen=True)
class ExpertLayout:
    """The block of one expert: gate [I, H], up [I, H], down [H, I]."""

    gate: MatrixLayout
    up: MatrixLayout
    down: MatrixLayout

    def __post_init__(self) -> None:
        size, hidden = self.gate.rows, self.gate.cols
        if (self.up.rows, self.up.cols) != (size, hidden) or (self.down.rows, self.down.cols) != (hidden, size):
            raise ValueError(f"gate {self.gate}, up {self.up} and down {self.down} do not form one expert")

    @property
    def gate_offset(self) -> int:
        """Start of gate in the block."""
        return 0

    @cached_property
    def up_offset(self) -> int:
        """Start of up in the block."""
        return self.gate.nbytes

    @cached_property
    def down_offset(self) -> int:
        """Start of down in the block."""
        return self.up_offset + self.up.nbytes

    @cached_property
    def block_bytes(self) -> int:
        """Size of the block, a multiple of 4096."""
        return round_up(self.down_offset + self.down.nbytes, BLOCK_ALIGNMENT)
