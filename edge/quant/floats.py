"""float32, float16 and bfloat16 as numpy sees them. numpy has no bf16: it travels as uint16 patterns."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.layout import Format

STORED_DTYPES: dict[Format, Any] = {Format.F32: np.float32, Format.F16: np.float16, Format.BF16: np.uint16}


def widen(stored: NDArray[Any], form: Format) -> NDArray[np.float32]:
    """Stored elements as float32, exactly. A contiguous copy."""
    if form is Format.BF16:  # the upper half of a float32
        return (stored.astype(np.uint32, order="C") << 16).view(np.float32)
    return stored.astype(np.float32, order="C")


def narrow(values: NDArray[np.float32], form: Format) -> NDArray[Any]:
    """float32 as stored elements, rounded to nearest, ties to even. Values are finite and in the format's range."""
    if form is Format.BF16:
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return values.astype(STORED_DTYPES[form])


def is_finite(stored: NDArray[Any], form: Format) -> bool:
    """Whether no element is NaN or infinite."""
    if form is Format.BF16:
        return not bool(((stored & 0x7F80) == 0x7F80).any())
    return bool(np.isfinite(stored).all())
