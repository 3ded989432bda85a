"""How an engine may depart from what the model itself would compute, on request only; and how far it did."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge.config import ModelConfig
from edge.errors import RequestError


@dataclass(frozen=True, slots=True)
class Deviation:
    """What whoever runs an engine traded for speed; with none of it there is no Deviation."""

    own_experts: int  # per token, as the model's makers chose
    experts: int  # per token; at most those
    substitute: float | None = None  # a missing expert with less than this share of a token gives way to one in RAM

    @classmethod
    def asked(cls, config: ModelConfig, experts_per_token: int | None, substitute: float | None) -> Self | None:
        """Of a model as released, whose K `config` holds; None: nothing deviates. Raises RequestError."""
        check_deviation(experts_per_token, substitute)
        if experts_per_token is None and substitute is None:
            return None
        if not config.num_experts:
            raise RequestError(f"a {config.family} model has no routed experts: leave experts_per_token and substitute")
        experts = config.top_k if experts_per_token is None else experts_per_token
        if experts > config.top_k:
            raise RequestError(f"experts_per_token is {experts}: it must be 1 to the model's own {config.top_k}")
        return None if experts == config.top_k and substitute is None else cls(config.top_k, experts, substitute)


def check_deviation(experts_per_token: int | None, substitute: float | None) -> None:
    """What can be checked without a model. Raises RequestError."""
    if experts_per_token is not None and experts_per_token < 1:
        raise RequestError(f"experts_per_token is {experts_per_token}: it must be at least 1")
    if substitute is not None and not 0 < substitute <= 1:
        raise RequestError(f"substitute is {substitute}: it must be above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class RoutingCounts:
    """The agreement meter, counted only where something deviates. A routing is one token's choice in one layer."""

    routings: int = 0
    substituted: int = 0  # experts that stood in for one that the router had chosen
    weight_kept: float = 0.0  # summed over routings: the router's weight of the experts used by that of its own choice

    def __add__(self, other: "RoutingCounts") -> "RoutingCounts":
        return RoutingCounts(
            self.routings + other.routings,
            self.substituted + other.substituted,
            self.weight_kept + other.weight_kept,
        )

    def __sub__(self, other: "RoutingCounts") -> "RoutingCounts":
        return RoutingCounts(
            self.routings - other.routings,
            self.substituted - other.substituted,
            self.weight_kept - other.weight_kept,
        )

    def agreement(self, experts: int) -> float:
        """Share of the chosen experts, so many per token, that were the router's own; 1 of none."""
        return 1 - self.substituted / (self.routings * experts) if self.routings else 1.0

    @property
    def mean_weight_kept(self) -> float:
        """Over routings, 0 to 1; 1 of none."""
        return self.weight_kept / self.routings if self.routings else 1.0


NOT_COUNTED = RoutingCounts()


def counted(sums: NDArray[np.float64]) -> RoutingCounts:
    """From f64[3], in the order of the fields."""
    routings, substituted, weight_kept = sums.tolist()
    return RoutingCounts(int(routings), int(substituted), weight_kept)
