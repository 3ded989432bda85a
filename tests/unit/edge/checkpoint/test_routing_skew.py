"""How often experts are chosen: the curve of a real model, and offsets that bring it about."""

import numpy as np
import pytest

from edge.checkpoint.routing_skew import choices, coverage, frequencies, mean_square_share, offsets

# Of 512 experts: the share of activations that the hottest cover, measured on the real 397B.
MEASURED = {16: 0.33, 32: 0.49, 48: 0.59, 64: 0.67, 96: 0.78, 128: 0.85, 512: 1.0}


@pytest.mark.parametrize(("hottest", "share"), MEASURED.items())
def test_the_curve_is_that_of_the_real_model(hottest: int, share: float) -> None:
    assert abs(coverage(hottest / 512) - share) < 0.01
    assert abs(frequencies(512, 10)[:hottest].sum() / 10 - share) < 0.015  # less what the coldest get at least


@pytest.mark.parametrize(("num_experts", "top_k"), [(512, 10), (256, 8), (16, 4), (8, 2), (5, 5), (3, 1), (1, 1)])
def test_frequencies_fall_and_make_top_k_choices_per_token(num_experts: int, top_k: int) -> None:
    wanted = frequencies(num_experts, top_k)
    assert wanted.sum() == pytest.approx(top_k)
    assert (np.diff(wanted) <= 1e-12).all()
    assert (wanted > 0).all()
    assert (wanted <= 1 + 1e-12).all()


@pytest.mark.parametrize(("num_experts", "top_k"), [(512, 10), (64, 8), (8, 2)])
def test_offsets_bring_the_frequencies_about_on_other_samples(num_experts: int, top_k: int) -> None:
    wanted = frequencies(num_experts, top_k)
    added = offsets(wanted, top_k, seed=1)
    noise = np.random.default_rng(2).standard_normal((4000, num_experts))
    found = choices(noise + added, top_k).mean(axis=0)
    for hottest in {max(1, num_experts * share // 32) for share in (1, 2, 4, 8, 16)}:
        assert abs(found[:hottest].sum() - wanted[:hottest].sum()) / top_k < 0.02
    assert abs(added.mean()) < 1e-9


def test_shares_of_equal_logits_are_equal() -> None:
    assert mean_square_share(np.zeros(1), 1, seed=0) == 1
    # Offsets much larger than the noise: two experts share what there is, or one has it all.
    assert mean_square_share(np.array([50.0, 0, 0]), 2, seed=0) == pytest.approx(1)
    assert 1 / 8 < mean_square_share(np.zeros(64), 8, seed=0) < 1 / 4
