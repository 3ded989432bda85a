"""Where every byte of a packed model lies: the only place that knows offsets and sizes.

Floats are stored row-major: rows × padded_cols elements, little-endian, padding columns zero.

Quantised matrices are one stream of records, in the order in which a matrix product eats them: for each TILE of 16 rows
(the last one filled up with rows of zeros), for each GROUP of columns: fp16 scales of the 16 rows, their fp16 biases,
then the codes. A weight is scale * code + bias of its row and group; padding columns have code 0.
Codes come in vectors of 64 bytes whose 32-bit lane r belongs to row r of the tile. Four columns of 16 rows are a QUAD:
one code per byte, the first column lowest. Each 64 columns (16 quads) of a group follow each other, and take
  Q8: 16 vectors, vector j holding quad j;
  Q4: 8 vectors, quads 2j and 2j+1 in the low and high half of each byte;
  Q2: 4 vectors, quads 4j to 4j+3 in two bits each, the first lowest;
  Q3: 4 vectors of the codes' two low bits as Q2 has them, then 2 of the third bit: quads 8j to 8j+7 in a bit each.
With groups of 64 that makes 8.5, 4.5, 2.5 and 3.5 bits per weight.

An expert is one block: gate, up, down, each at a multiple of 64 bytes; expert e of a layer's file starts at
e * block_bytes, a multiple of 4096 so that O_DIRECT can read it.
"""

import enum
from dataclasses import dataclass
from functools import cached_property

VERSION = 2

MATRIX_ALIGNMENT = 64  # a cache line, and the widest vector register
BLOCK_ALIGNMENT = 4096  # what O_DIRECT asks of offsets, lengths and addresses
FLOAT_COLUMNS = 16  # padding of float rows: one AVX-512 register of f32

TILE_ROWS = 16  # 32-bit lanes of a vector
QUAD_COLUMNS = 4  # bytes of a lane: what one int8 dot product instruction sums
RUN_COLUMNS = 64  # the fewest columns whose codes fill whole vectors in every format
RUN_QUADS = RUN_COLUMNS // QUAD_COLUMNS
# Of a record.
SCALES_OFFSET = 0
BIASES_OFFSET = 2 * TILE_ROWS
CODES_OFFSET = 4 * TILE_ROWS


class Format(enum.IntEnum):
    """How a matrix's elements are stored. The numbers are part of the native interface."""

    F32 = 0
    F16 = 1
    BF16 = 2
    Q8 = 3
    Q4 = 4
    Q3 = 5
    Q2 = 6

    @property
    def is_quantized(self) -> bool:
        """Whether elements are codes with a scale and a bias per group."""
        return self >= Format.Q8

    @property
    def bits(self) -> int:
        """Bits per element or code, scales and biases not counted."""
        return _BITS[self]

    @property
    def planes(self) -> tuple[int, ...]:
        """How the bits of a code are split over vectors: widths from the lowest bit on. None for floats."""
        if self is Format.Q3:  # three bits do not divide a byte
            return (2, 1)
        return (self.bits,) if self.is_quantized else ()


_BITS = {Format.F32: 32, Format.F16: 16, Format.BF16: 16, Format.Q8: 8, Format.Q4: 4, Format.Q3: 3, Format.Q2: 2}


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
        if self.format.is_quantized and (self.group < RUN_COLUMNS or self.group % RUN_COLUMNS):
            raise ValueError(f"group {self.group} of {self.format.name}; must be a positive multiple of {RUN_COLUMNS}")
        if not self.format.is_quantized and self.group:
            raise ValueError(f"group {self.group} of {self.format.name}; float formats have none (0)")

    @cached_property
    def padded_cols(self) -> int:
        """Columns stored per row."""
        return round_up(self.cols, self.group or FLOAT_COLUMNS)

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one row of a float matrix; 0 for quantised ones, whose rows are interleaved."""
        return 0 if self.format.is_quantized else self.padded_cols * self.format.bits // 8

    @cached_property
    def num_tiles(self) -> int:
        """Tiles of 16 rows; 0 for float formats, as all of the following."""
        return -(-self.rows // TILE_ROWS) if self.format.is_quantized else 0

    @cached_property
    def num_groups(self) -> int:
        """Groups of columns: records per tile."""
        return self.padded_cols // self.group if self.group else 0

    @cached_property
    def codes_bytes(self) -> int:
        """Bytes of codes in one record, a multiple of 64."""
        return TILE_ROWS * self.group * self.format.bits // 8

    @cached_property
    def record_bytes(self) -> int:
        """Scales, biases and codes of one group of one tile, a multiple of 64."""
        return CODES_OFFSET + self.codes_bytes if self.format.is_quantized else 0

    @cached_property
    def tile_bytes(self) -> int:
        """The records of one tile."""
        return self.num_groups * self.record_bytes

    @cached_property
    def nbytes(self) -> int:
        """Size with padding, a multiple of 64."""
        return round_up(self.num_tiles * self.tile_bytes + self.rows * self.row_bytes, MATRIX_ALIGNMENT)


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
