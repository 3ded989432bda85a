"""How many of the experts that a layer needs the guess of a layer before names, by how many it names."""

from collections.abc import Iterable, Sequence

from edge.errors import TraceError
from edge.experts.policies import DecayedLfu
from edge.experts.simulate import replay, uses_per_pass
from edge.experts.trace import Access, Trace


def recall(accesses: Sequence[Access] | Trace, depths: Sequence[int], num_slots: int | None = None) -> list[float]:
    """By depth: the share of experts, while decoding, that are among so many guessed the surest.

    Of all that layers needed for which there was a guess; with `num_slots`, of those alone that a cache of that size
    under the engine's policy would have lacked. Raises TraceError if there is nothing to take a share of.
    """
    ranks = sorted(_ranks(accesses) if num_slots is None else _missing_ranks(accesses, num_slots))
    if not ranks:
        raise TraceError("no expert that is missing while decoding was guessed or not: record a longer trace")
    return [sum(rank < depth for rank in ranks) / len(ranks) for depth in depths]


def _ranks(accesses: Iterable[Access]) -> list[int]:
    return [rank for access in accesses if not access.is_scan for rank in access.ranks]


def _missing_ranks(accesses: Sequence[Access] | Trace, num_slots: int) -> list[int]:
    policy = DecayedLfu.for_passes(uses_per_pass(accesses))
    return [
        rank
        for access, found in replay(accesses, policy, num_slots)
        if not access.is_scan
        for rank, is_here in zip(access.ranks, found, strict=False)
        if not is_here
    ]
