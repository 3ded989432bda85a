"""Who gives way: never more than has to, and nobody who has no more than an equal share."""

from hypothesis import given
from hypothesis import strategies as st

from edge.prefix.room import Holding, leaving

A, B, C = b"a", b"b", b"c"
MOST = 100
holdings = st.lists(
    st.builds(Holding, st.sampled_from([A, B, C]), st.integers(1, 40), st.sampled_from([False, False, True])),
    max_size=12,
)
newcomers = st.builds(Holding, st.sampled_from([A, B, C]), st.integers(1, 120))


def test_alone_one_loses_what_was_not_used_for_longest() -> None:
    assert leaving([Holding(A, 30), Holding(A, 30), Holding(A, 40)], Holding(A, 35), MOST) == [0, 1]
    assert leaving([Holding(A, 30)], Holding(A, 70), MOST) == []
    assert leaving([Holding(A, 30)], Holding(A, 101), MOST) is None


def test_who_sends_much_loses_its_own() -> None:
    held = [Holding(B, 20), *[Holding(A, 20)] * 4]
    assert leaving(held, Holding(A, 20), MOST) == [1]
    assert leaving(held, Holding(C, 20), MOST) == [1]
    assert leaving(held, Holding(B, 20), MOST) == [1]


def test_what_nobody_else_wants_may_be_had() -> None:
    assert leaving([Holding(A, 90)], Holding(B, 10), MOST) == []
    assert leaving([Holding(A, 90)], Holding(B, 60), MOST) == [0]


def test_what_is_pinned_stays_and_counts() -> None:
    assert leaving([Holding(A, 60, is_pinned=True), Holding(B, 30)], Holding(B, 40), MOST) == [1]
    assert leaving([Holding(A, 60, is_pinned=True), Holding(B, 30)], Holding(B, 41), MOST) is None


def test_the_number_of_holdings_is_limited_too() -> None:
    assert leaving([Holding(A, 1), Holding(B, 1), Holding(B, 1)], Holding(A, 1), MOST, most_holdings=3) == [0]
    assert leaving([Holding(A, 1), Holding(B, 1), Holding(B, 2)], Holding(C, 1), MOST, most_holdings=2) == [1, 2]


@given(holdings, newcomers)
def test_there_is_room_afterwards_and_no_more_left_than_had_to(held: list[Holding], newcomer: Holding) -> None:
    gone = leaving(held, newcomer, MOST)
    pinned_bytes = sum(holding.nbytes for holding in held if holding.is_pinned)
    if gone is None:
        assert pinned_bytes + newcomer.nbytes > MOST
        return
    assert len(set(gone)) == len(gone)
    assert not any(held[place].is_pinned for place in gone)
    left = sum(holding.nbytes for holding in held) - sum(held[place].nbytes for place in gone)
    assert left + newcomer.nbytes <= MOST
    if gone:
        assert left + held[gone[-1]].nbytes + newcomer.nbytes > MOST


@given(holdings, newcomers)
def test_nobody_loses_of_an_equal_share(held: list[Holding], newcomer: Holding) -> None:
    held = [holding._replace(is_pinned=False) for holding in held]
    scopes = {holding.scope for holding in held} | {newcomer.scope}
    share = MOST / len(scopes)
    newcomer = newcomer._replace(nbytes=min(newcomer.nbytes, int(share)))
    gone = leaving(held, newcomer, MOST)
    assert gone is not None
    for scope in scopes - {newcomer.scope}:
        if sum(holding.nbytes for holding in held if holding.scope == scope) <= share:
            assert not any(held[place].scope == scope for place in gone)
