"""What each choice of `--bits` means for the parts of a model."""

from dataclasses import dataclass

from edge.checkpoint.layout import RUN_COLUMNS, Format
from edge.checkpoint.names import Part
from edge.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Precision:
    """Formats of the matrices that are quantised; None leaves each in the checkpoint's own precision."""

    bits: float  # as `--bits` and the manifest have it
    dense: Format | None
    gate_up: Format | None
    down: Format | None

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


def precision(bits: float) -> Precision:
    """Raises CheckpointError naming what is possible."""
    for choice in PRECISIONS:
        if choice.bits == bits:
            return choice
    raise CheckpointError(f"{bits:g} bits; possible: {', '.join(f'{choice:g}' for choice in BITS)}")


def check_group(group: int) -> int:
    """The group, unless no layout has it: then CheckpointError."""
    if group < RUN_COLUMNS or group % RUN_COLUMNS:
        raise CheckpointError(f"group {group}; must be a positive multiple of {RUN_COLUMNS}")
    return group
