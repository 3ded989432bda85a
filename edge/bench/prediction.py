"""What decoding will take, from what a pass must read and compute; nothing is measured here.

The model. In each layer the router names the experts; the m of them that are not in RAM are asked of the disk at once,
and while they come the shared expert and the experts that are there are computed. Missing ones arrive one after another
at the disk's rate, and each is computed on arrival. So a pass takes

    compute + layers * wait
    wait = mean over m of (finish(m) - shared - all * e)
    finish(i) = max(finish(i - 1), i * block / disk) + e,  finish(0) = shared + (all - m) * e

with e the time to compute one expert. m is binomial: each expert is there with the probability of a hit. Reads on a
guess of the next layer's experts use the time in which the disk would idle, while what is not routed is computed: a
right guess is a read that is not waited for. The surest are read first, so that what fits in that time is right until
all that can be guessed is read; but the first layer cannot be guessed, nor the head's time be used. Dense layers that
stream are read ahead all the while, so that a pass is no shorter than what it reads of both by the disk's rate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge.profiling import HEAD, SHARED_EXPERT

# Right bytes read on a guess, as a part of what the disk gives in the same time with nothing computed beside it.
GUESSED_RATE = 0.7


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds that computing takes with all weights in RAM."""

    pass_seconds: dict[str, float]  # of all layers together, by kind of work, routed experts left out
    expert_seconds: float  # one expert of one layer, for all the tokens that chose it

    def compute_seconds(self, lookups: float) -> float:
        """A pass that goes through so many experts in all."""
        return sum(self.pass_seconds.values()) + lookups * self.expert_seconds


@dataclass(frozen=True, slots=True)
class Routing:
    """What the sequences' tokens ask of a layer, and how much of it is in RAM or guessed."""

    lookups: float  # distinct experts of a layer in a pass
    hit_rate: float
    recall: float = 0.0  # share of the experts that are guessed a layer ahead; 0 without such reads

    def __post_init__(self) -> None:
        if not (self.lookups >= 0 and 0 <= self.hit_rate <= 1):
            raise ValueError(f"{self.lookups} look-ups with a hit rate of {self.hit_rate}")
        if not 0 <= self.recall <= 1:
            raise ValueError(f"a recall of {self.recall}")

    @property
    def misses(self) -> float:
        """Of a layer in a pass."""
        return self.lookups * (1 - self.hit_rate)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Of one pass, which gives each sequence a token."""

    compute_seconds: float
    wait_seconds: float
    disk_bytes: float

    @property
    def seconds(self) -> float:
        """The whole pass."""
        return self.compute_seconds + self.wait_seconds


def predict(
    costs: Costs, routing: Routing, *, num_layers: int, block_bytes: int, disk_rate: float, streamed_bytes: int = 0
) -> Prediction:
    """`disk_rate`: bytes per second, of reads as a layer makes them; `streamed_bytes`: dense, in every pass."""
    shared = costs.pass_seconds.get(SHARED_EXPERT, 0.0) / num_layers
    read = block_bytes / disk_rate
    unrouted = (sum(costs.pass_seconds.values()) - costs.pass_seconds.get(HEAD, 0.0)) / num_layers - shared
    guessed = min(GUESSED_RATE * unrouted, routing.recall * routing.misses * read) * (num_layers - 1) / num_layers
    wait = max(0.0, _mean_wait(routing, shared, costs.expert_seconds, read) - guessed)
    compute = costs.compute_seconds(num_layers * routing.lookups)
    disk_bytes = num_layers * routing.misses * block_bytes + streamed_bytes
    least_wait = disk_bytes / disk_rate - compute if streamed_bytes else 0.0
    return Prediction(compute, max(num_layers * wait, least_wait), disk_bytes)


def _mean_wait(routing: Routing, shared: float, expert: float, read: float) -> float:
    """Of a layer, over the number of its experts that are missing."""
    count = round(routing.lookups)
    if not count:
        return 0.0
    chances = binomial(count, 1 - routing.hit_rate)
    mean = sum(chance * layer_wait(count, m, shared, expert, read) for m, chance in enumerate(chances))
    return mean * routing.lookups / count


def layer_wait(count: int, missing: int, shared: float, expert: float, read: float) -> float:
    """Seconds in which a layer has nothing to compute: `missing` of its `count` experts take `read` seconds each."""
    computing = shared + (count - missing) * expert
    finish = computing
    for number in range(1, missing + 1):
        finish = max(finish, number * read) + expert
    return finish - computing - missing * expert


def binomial(count: int, chance: float) -> list[float]:
    """The probability of 0 ... count successes."""
    return [math.comb(count, k) * chance**k * (1 - chance) ** (count - k) for k in range(count + 1)]


def routing_of(frequencies: Sequence[float], *, tokens: int, slots: float) -> Routing:
    """What `tokens` tokens in a pass ask of a layer whose cache holds `slots` experts: the most frequent, as LFU would.

    `frequencies`: how often a token chooses each expert, the most frequent first. Each token chooses on its own.
    """
    asked = [1 - (1 - frequency) ** tokens for frequency in frequencies]
    lookups = sum(asked)
    whole = min(int(slots), len(asked))
    hits = sum(asked[:whole]) + (asked[whole] * (slots - whole) if whole < len(asked) else 0)
    return Routing(lookups, min(1.0, hits / lookups) if lookups else 0.0)


def uniform(num_experts: int, top_k: int) -> list[float]:
    """Every expert is chosen as often as any other, as by random weights."""
    return [top_k / num_experts] * num_experts
