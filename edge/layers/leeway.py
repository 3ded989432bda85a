"""Which experts a token goes to where the router's own choice may be departed from, and a count of how far it was.

Substitution is of the kind of Skliar et al. 2024 (arXiv:2412.00099): a missing expert gives way to one in RAM, the
surest are taken all the same, and the weights are the router's own over what is used. Theirs give experts in RAM a
bonus before the ranking; here only what has a small share of the token gives way, whatever stands in for it: that
bounds the error by the share, where theirs also trades a large share for a slightly smaller one. On the demo model it
loses less for the same reads (edge/EXPERIMENTS.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge import kernels
from edge.deviation import Deviation, RoutingCounts, counted

# Of the experts that a token goes to, the surest quarter is never replaced: 1 of 4, 2 of 8, 3 of 10. The paper keeps 1
# or 2 of up to 8.
SURE_PART = 4

IsHere = Callable[[int], bool]


@dataclass(frozen=True, slots=True)
class Choice:
    """Of each token. `experts` [T, K], rising, and `shares` [T, K], which sum to 1."""

    experts: NDArray[np.int32]
    shares: NDArray[np.float32]
    spared: tuple[int, ...] = ()  # the router's choice of some token, that no token goes to: neither read nor used


class Leeway:
    """Departs from the router's choice as far as it may. One for all layers of a model; one thread."""

    def __init__(self, deviation: Deviation) -> None:
        self.total = RoutingCounts()
        self.last: NDArray[np.float64] = np.zeros((0, 3))  # what each token of the last choice adds to RoutingCounts
        self._own_experts = deviation.own_experts
        self._experts = deviation.experts
        self._substitute = deviation.substitute

    def choose(self, logits: NDArray[np.float32], is_here: IsHere | None) -> Choice:
        """For the router's logits [T, E]. `is_here`: whether an expert is in RAM; None: substitute nothing."""
        routed = Choice(*kernels.route(logits, self._experts))
        choice = routed
        if self._substitute is not None and is_here:
            choice = self._substituted(logits, routed, self._substitute, is_here)
        self._count(logits, routed.experts, choice.experts)
        return choice

    def _substituted(self, logits: NDArray[np.float32], routed: Choice, share: float, is_here: IsHere) -> Choice:
        experts, shares = routed.experts.copy(), routed.shares.copy()
        # What one token must have is read for it, and then there for the others, too.
        coming = {expert for row, chosen in enumerate(routed.experts) for expert in surest(logits[row], chosen)}
        spared = set[int]()
        for row, (chosen, weights) in enumerate(zip(routed.experts, routed.shares, strict=True)):
            small = chosen[weights < share].tolist()
            taken = substitutes(logits[row], chosen, small, lambda e: e in coming or is_here(e))
            if taken:
                experts[row] = sorted(taken.get(expert, expert) for expert in chosen.tolist())
                shares[row] = softmax(logits[row, experts[row]])
                spared.update(taken)
            coming.update(experts[row].tolist())
        return Choice(experts, shares, tuple(sorted(spared - coming))) if spared else routed

    def _count(self, logits: NDArray[np.float32], routed: NDArray[np.int32], used: NDArray[np.int32]) -> None:
        self.last = np.ones((len(used), 3))
        self.last[:, 1] = 0 if used is routed else (used[:, :, None] != routed[:, None, :]).all(2).sum(1)
        own = routed if self._experts == self._own_experts else kernels.route(logits, self._own_experts)[0]
        if used is not own:
            self.last[:, 2] = weight_kept(logits, own, used)
        self.total += counted(self.last.sum(0))


def weight_kept(logits: NDArray[np.float32], own: NDArray[np.int32], used: NDArray[np.int32]) -> NDArray[np.float32]:
    """Of each token: the router's weight of the experts `used` by that of its `own`; logits [T, E], others [T, K].

    0 for logits that are no numbers, so that damaged weights do not spoil the count of what comes after them.
    """
    with np.errstate(invalid="ignore"):
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        kept: NDArray[np.float32] = np.take_along_axis(odds, used, 1).sum(1) / np.take_along_axis(odds, own, 1).sum(1)
    return np.nan_to_num(kept, copy=False)


def surest(logits: NDArray[np.float32], chosen: NDArray[np.int32]) -> list[int]:
    """Those of the experts chosen for a token that nothing stands in for."""
    likeliest: list[int] = chosen[np.argsort(-logits[chosen], kind="stable")].tolist()
    return likeliest[: -(-len(likeliest) // SURE_PART)]


def substitutes(
    logits: NDArray[np.float32], chosen: NDArray[np.int32], small: Sequence[int], is_here: IsHere
) -> dict[int, int]:
    """Of the `small` ones of the experts chosen for a token, those that are replaced, and by which; logits f32[E].

    The least likely one goes first, for the likeliest that is here and not chosen; and so on while there are any.
    """
    sure = surest(logits, chosen)
    leaving = [expert for expert in small if expert not in sure and not is_here(expert)]
    if not leaving:
        return {}
    leaving.sort(key=lambda expert: (logits[expert], expert))
    taken = set(chosen.tolist())
    ranking: list[int] = np.argsort(-logits, kind="stable").tolist()
    stand_ins = (expert for expert in ranking if expert not in taken and is_here(expert))
    return dict(zip(leaving, stand_ins, strict=False))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of a vector."""
    odds = np.exp(logits - logits.max())
    shares: NDArray[np.float32] = odds / odds.sum()
    return shares
