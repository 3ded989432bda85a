"""Who gives way when room for snapshots is short: whoever holds most, so that no tenant can push the others out.

Pure: values in, values out.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from typing import NamedTuple


class Holding(NamedTuple):
    """A snapshot that takes room. One that is pinned counts and cannot give way."""

    scope: bytes
    nbytes: int
    is_pinned: bool = False


def leaving(
    holdings: Sequence[Holding], newcomer: Holding, most_bytes: int, most_holdings: int | None = None
) -> list[int] | None:
    """The places in `holdings`, least recently used first, of those that go; None if there cannot be so much room.

    Again and again the scope that would hold the most bytes with the newcomer loses what it used least recently. So a
    scope keeps what it has up to an equal share of all, whatever others send; what nobody else wants it may have.
    """
    shares = Counter({newcomer.scope: newcomer.nbytes})
    loose = defaultdict[bytes, deque[int]](deque)
    for place, holding in enumerate(holdings):
        shares[holding.scope] += holding.nbytes
        if not holding.is_pinned:
            loose[holding.scope].append(place)
    excess_bytes = shares.total() - most_bytes
    excess = 0 if most_holdings is None else len(holdings) + 1 - most_holdings
    gone = list[int]()
    while excess_bytes > 0 or len(gone) < excess:
        if not loose:
            return None
        scope = max(loose, key=lambda scope: (shares[scope], -loose[scope][0]))
        gone.append(loose[scope].popleft())
        if not loose[scope]:
            del loose[scope]
        shares[scope] -= holdings[gone[-1]].nbytes
        excess_bytes -= holdings[gone[-1]].nbytes
    return gone
