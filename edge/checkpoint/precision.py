"""What each choice of `--bits` means for the parts of a model."""

from dataclasses import dataclass, replace

from edge.checkpoint.layout import RUN_COLUMNS, Format
from edge.checkpoint.names import DenseTensor, Part, Role
from edge.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Precision:
    """Formats of the matrices that are quantised; None leaves each in the checkpoint's own precision."""

    bits: float  # as `--bits` and the manifest have it
    dense: Format | None
    gate_up: Format | None
    down: Format | None
    sensitive: Format | None = None  # of what `is_sensitive`, instead of `dense`

    def of_dense(self, tensor: DenseTensor, *, is_tied: bool) -> Format | None:
        """Of a matrix outside the routed experts. `is_tied`: whether the embedding is the head too."""
        if tensor.role is not Role.QUANTIZED:
            return None
        return self.sensitive if self.sensitive and is_sensitive(tensor.name, is_tied=is_tied) else self.dense

    def expert(self, part: Part) -> Format | None:
        """Of a routed expert's matrix."""
        return self.down if part is Part.DOWN else self.gate_up


# Below 4 bits only routed experts go: the dense part is a few per cent of the weights, and every token feels all of it.
# 3.4 keeps the more sensitive `down` at 4 bits: on the 397B WikiText-2 perplexity 3.64 -> 3.81, against 5.71 at 2 bits.
PRECISIONS = (
    Precision(16, None, None, None),
    Precision(8, Format.Q8, Format.Q8, Format.Q8),
    Precision(4, Format.Q4, Format.Q4, Format.Q4),
    Precision(3.4, Format.Q4, Format.Q3, Format.Q4),
    Precision(3, Format.Q4, Format.Q3, Format.Q3),
    Precision(2, Format.Q4, Format.Q2, Format.Q2),
)
BITS = tuple(precision.bits for precision in PRECISIONS)
CALIBRATION_TOKENS = 65_536  # that are used of a text, unless told otherwise
SENSITIVE_BITS = {8: Format.Q8, 4: Format.Q4}

# Attention and what a DeltaNet layer puts out: errors there reach every later token. Engines that run the 397B keep
# these at 8 bits, which costs 1.5 GB of its RAM.
SENSITIVE = (".q_proj", ".k_proj", ".v_proj", ".o_proj", ".linear_attn.out_proj")


def is_sensitive(name: str, *, is_tied: bool) -> bool:
    """Whether a dense matrix is worth more bits than the others; an embedding is where it is the head as well."""
    return name.endswith(SENSITIVE) or (is_tied and name == "embed_tokens")


def precision(bits: float, sensitive_bits: int | None = None) -> Precision:
    """`sensitive_bits`: of what `is_sensitive`, where all else has fewer; None: as many as all else.

    Raises: CheckpointError naming what is possible.
    """
    if sensitive_bits is not None and sensitive_bits not in SENSITIVE_BITS:
        raise CheckpointError(f"{sensitive_bits} sensitive bits; possible: {', '.join(map(str, SENSITIVE_BITS))}")
    for choice in PRECISIONS:
        if choice.bits == bits:
            return replace(choice, sensitive=SENSITIVE_BITS[sensitive_bits] if sensitive_bits and bits < 8 else None)
    raise CheckpointError(f"{bits:g} bits; possible: {', '.join(f'{choice:g}' for choice in BITS)}")


def check_group(group: int) -> int:
    """The group, unless no layout has it: then CheckpointError."""
    if group < RUN_COLUMNS or group % RUN_COLUMNS:
        raise CheckpointError(f"group {group}; must be a positive multiple of {RUN_COLUMNS}")
    return group
