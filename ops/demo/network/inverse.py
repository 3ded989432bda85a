"""The inverse of I + A for small strictly lower triangular matrices, by matrix products alone."""

from typing import Any, cast

import torch


class _Inverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, lower: torch.Tensor) -> torch.Tensor:
        """(I + A)^-1 = (I - A)(I + A^2)(I + A^4)...: finite, for A is nilpotent."""
        size = lower.shape[-1]
        eye = torch.eye(size, dtype=lower.dtype, device=lower.device)
        inverse, power = eye - lower, lower
        for _ in range((size - 1).bit_length() - 1):
            power = power @ power
            inverse = torch.baddbmm(inverse, inverse, power)
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        """d(M^-1) = -M^-1 dM M^-1: two products instead of the way back through all of them."""
        (inverse,) = ctx.saved_tensors
        turned = inverse.transpose(-1, -2)
        change: torch.Tensor = -(turned @ gradients[0] @ turned).tril(-1)
        return change


def unit_lower_inverse(lower: torch.Tensor) -> torch.Tensor:
    """(I + A)^-1 of strictly lower triangular A [N, C, C]. The whole of A counts: zero what lies above."""
    return cast(torch.Tensor, _Inverse.apply(lower))  # type: ignore[no-untyped-call]
