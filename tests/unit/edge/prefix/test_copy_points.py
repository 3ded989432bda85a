"""Where a prompt is copied, and which beginnings are remembered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.prefix.points import MIN_GAIN_TOKENS, OPENING_TOKENS, SeenPrompts, copy_points


def blocks(text: str) -> list[bytes]:
    """The names of a prompt's beginnings."""
    return [text[:end].encode() for end in range(1, len(text) + 1)]


@pytest.mark.parametrize(
    ("num_tokens", "reused", "shared", "points"),
    [
        (1, 0, 0, ()),
        (23, 0, 0, ()),  # 15 tokens before the opening of the answer
        (24, 0, 0, (16,)),
        (100, 0, 0, (92,)),
        (100, 0, 48, (48, 92)),
        (100, 0, 80, (92,)),  # a copy at 80 would save 12 tokens at most
        (100, 0, 96, (92,)),  # the same prompt again
        (100, 48, 48, (92,)),
        (100, 92, 96, ()),
        (100, 77, 0, ()),
        (100, 76, 0, (92,)),
    ],
)
def test_copies_are_made_where_they_save_enough(
    num_tokens: int, reused: int, shared: int, points: tuple[int, ...]
) -> None:
    assert copy_points(num_tokens, reused, shared) == points


@given(num_tokens=st.integers(1, 300), reused=st.integers(0, 299), shared=st.integers(0, 18))
def test_copies_rise_and_each_saves_something(num_tokens: int, reused: int, shared: int) -> None:
    reused = min(reused, num_tokens - 1)
    points = copy_points(num_tokens, reused, min(16 * shared, num_tokens))
    for before, point in zip((reused, *points), points, strict=False):
        assert before + MIN_GAIN_TOKENS <= point <= num_tokens - OPENING_TOKENS


def test_a_first_prompt_shares_nothing_and_a_second_what_it_shares() -> None:
    seen = SeenPrompts()
    assert seen.meet(blocks("abcd")) == 0
    assert seen.meet(blocks("abxy")) == 2
    assert seen.meet(blocks("abcz")) == 3
    assert seen.meet(blocks("zabc")) == 0
    assert seen.meet([]) == 0


def test_the_oldest_prompts_are_forgotten_from_their_ends() -> None:
    seen = SeenPrompts(max_blocks=5)
    seen.meet(blocks("abc"))
    seen.meet(blocks("xyz"))
    assert len(seen) == 5
    assert seen.meet(blocks("abc")) == 2  # which also makes them the youngest
    assert seen.meet(blocks("xyz")) == 2


def test_a_prompt_beyond_the_bound_is_remembered_by_its_beginning() -> None:
    seen = SeenPrompts(max_blocks=3)
    seen.meet(blocks("abcdef"))
    assert len(seen) == 3
    assert seen.meet(blocks("abcdxx")) == 3
