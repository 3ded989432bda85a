"""The learning rate's course."""

import pytest

from ops.demo.recipe import Recipe

RECIPE = Recipe(tokens=1000, peak_rate=2.0, warm_up_steps=4, decay_share=0.5)


@pytest.mark.parametrize(
    ("step", "seen", "rate"),
    [(0, 0, 0.5), (3, 40, 2.0), (9, 500, 2.0), (9, 750, 1.0), (9, 1000, 0.0), (9, 1100, 0.0)],
)
def test_the_rate_rises_stays_and_falls(step: int, seen: int, rate: float) -> None:
    assert RECIPE.rate(step, seen) == pytest.approx(rate)


def test_every_number_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"tokens is 0.*clip is nan.*mtp_from is 2.*decay_share is 0.*seed is -1"):
        Recipe(tokens=0, clip=float("nan"), mtp_from=2.0, decay_share=0.0, seed=-1)


def test_the_mtp_layer_learns_from_its_time_on_in_one_of_so_many_steps() -> None:
    recipe = Recipe(tokens=100, mtp_from=0.5, mtp_every=4)
    assert [step for step in range(16) if recipe.teaches_mtp(step, tokens_seen=10 * step)] == [8, 12]
