"""What may deviate is checked against the model, and what did is counted."""

import math
from dataclasses import replace

import numpy as np
import pytest

from edge.checkpoint.random_model import SMALL
from edge.deviation import NOT_COUNTED, Deviation, RoutingCounts, counted
from edge.engine_options import EngineOptions
from edge.errors import RequestError

DENSE = replace(SMALL, num_experts=0, top_k=0, expert_size=0, shared_expert_size=0, mlp_size=64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experts_per_token": 0}, "experts_per_token is 0: it must be at least 1"),
        ({"experts_per_token": -3}, "experts_per_token is -3"),
        ({"substitute": 0.0}, "substitute is 0.0: it must be above 0 and at most 1"),
        ({"substitute": -0.5}, "substitute is -0.5"),
        ({"substitute": 1.5}, "substitute is 1.5"),
        ({"substitute": math.nan}, "substitute is nan"),
        ({"substitute": math.inf}, "substitute is inf"),
    ],
)
def test_options_out_of_range_are_refused_without_a_model(options: dict[str, float], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        EngineOptions(memory_bytes=1, **options)  # type: ignore[arg-type] # by name


def test_more_experts_than_the_model_has_per_token_are_refused_with_its_own() -> None:
    with pytest.raises(RequestError, match="experts_per_token is 5: it must be 1 to the model's own 4"):
        Deviation.asked(SMALL, 5, None)


@pytest.mark.parametrize("asked", [(2, None), (None, 0.5), (1, 1.0)])
def test_a_model_without_experts_cannot_deviate(asked: tuple[int | None, float | None]) -> None:
    with pytest.raises(RequestError, match="has no routed experts"):
        Deviation.asked(DENSE, *asked)


def test_only_what_changes_something_is_a_deviation() -> None:
    assert Deviation.asked(SMALL, None, None) is None
    assert Deviation.asked(DENSE, None, None) is None
    assert Deviation.asked(SMALL, SMALL.top_k, None) is None
    assert Deviation.asked(SMALL, 3, None) == Deviation(4, 3)
    assert Deviation.asked(SMALL, None, 0.5) == Deviation(4, 4, 0.5)


def test_counts_add_up_and_give_means() -> None:
    counts = RoutingCounts(3, 2, 2.5) + counted(np.array([1.0, 0.0, 1.0]))
    assert counts == RoutingCounts(4, 2, 3.5)
    assert counts - RoutingCounts(4, 2, 3.5) == NOT_COUNTED
    assert counts.agreement(2) == 0.75
    assert counts.mean_weight_kept == 0.875
    assert (NOT_COUNTED.agreement(2), NOT_COUNTED.mean_weight_kept) == (1.0, 1.0)
