"""Muon for the matrices, AdamW for all else (Muon with AdamW's step size: arXiv 2502.16982)."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

MOMENTUM = 0.95
BETAS, EPS = (0.9, 0.95), 1e-8
RMS = 0.2  # of an AdamW step, which Muon's are scaled to
BY_ADAM = ("embed_tokens", "lm_head", "conv1d", "mlp.gate.", "shared_expert_gate", "in_proj_a", "in_proj_b")


class Optimizer:
    """Both over the named parameters of a model. One rate drives them."""

    def __init__(self, model: nn.Module, weight_decay: float) -> None:
        self._parameters = dict(model.named_parameters())  # a tied head counts once
        self._weight_decay = weight_decay
        self._moments: dict[str, list[torch.Tensor]] = {}
        self._steps: dict[str, int] = {}

    def state(self) -> dict[str, Any]:
        """To save; `load` takes it back."""
        return {"moments": self._moments, "steps": self._steps}

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on where the state was saved."""
        self._moments, self._steps = dict(state["moments"]), dict(state["steps"])

    def clip(self, limit: float) -> float:
        """Shortens the gradient of all parameters together to `limit`; its length before."""
        return float(nn.utils.clip_grad_norm_(self._parameters.values(), limit))

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every parameter that has a gradient, and forget the gradients."""
        for name, parameter, gradient in self._with_gradients():
            if is_matrix(name, parameter):
                change = self._muon(name, gradient)
                parameter.mul_(1 - rate * self._weight_decay)
            else:
                change = self._adam(name, gradient)
            parameter.sub_(change, alpha=rate)
            parameter.grad = None

    def _with_gradients(self) -> Iterator[tuple[str, nn.Parameter, torch.Tensor]]:
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                yield name, parameter, parameter.grad

    def _moments_of(self, name: str, like: torch.Tensor, count: int) -> list[torch.Tensor]:
        if name not in self._moments:
            self._moments[name] = [torch.zeros_like(like) for _ in range(count)]
        self._steps[name] = self._steps.get(name, 0) + 1
        return self._moments[name]

    def _muon(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        (momentum,) = self._moments_of(name, gradient, 1)
        momentum.mul_(MOMENTUM).add_(gradient)
        nesterov = gradient + MOMENTUM * momentum
        if name.endswith("gate_up_proj"):  # two matrices of each expert, one above the other
            nesterov = nesterov.view(len(nesterov), 2, -1, nesterov.shape[-1])
        scale: float = RMS * max(nesterov.shape[-2:]) ** 0.5
        return (orthogonal(nesterov) * scale).view_as(gradient)

    def _adam(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        first, second = self._moments_of(name, gradient, 2)
        step = self._steps[name]
        first.lerp_(gradient, 1 - BETAS[0])
        second.lerp_(gradient.square(), 1 - BETAS[1])
        length = (second / (1 - BETAS[1] ** step)).sqrt() + EPS
        change: torch.Tensor = first / (1 - BETAS[0] ** step) / length
        return change


def is_matrix(name: str, parameter: torch.Tensor) -> bool:
    """Whether it maps between hidden states: these go by Muon."""
    return parameter.ndim >= 2 and not any(part in name for part in BY_ADAM)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """[..., R, C] with all singular values near 1, by Newton and Schulz's iteration (Keller Jordan's coefficients)."""
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x: torch.Tensor = (matrices.mT if is_tall else matrices).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.mT if is_tall else x).float()
