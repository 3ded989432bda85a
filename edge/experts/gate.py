"""Whether reading experts before a router asked for them pays. Values in, values out: no reads, no clock."""

from collections.abc import Collection
from dataclasses import dataclass, field

# Opened at the first and closed below the second, so that noise at the border does not toggle it.
IDLE_SHARE = (0.10, 0.05)  # of the time of decoding in which no read is waited for
RECALL = (0.5, 0.4)  # of the experts needed, those that were guessed
LEAST_MISSING = 0.002  # of the experts needed: below, there is nothing to gain
# What is remembered of the past at each layer: the last few passes of a deep model, more of a shallow one.
MEMORY = 0.99


@dataclass(slots=True)
class Share:
    """A part of a whole, both summed with old terms fading."""

    part: float = 0.0
    whole: float = 0.0

    def add(self, part: float, whole: float) -> None:
        """One more term of each."""
        self.part = MEMORY * self.part + part
        self.whole = MEMORY * self.whole + whole

    @property
    def value(self) -> float:
        """Their ratio; 1 while nothing is known."""
        return self.part / self.whole if self.whole else 1.0


@dataclass(slots=True)
class Gate:
    """Open while the disk idles, guesses come true and something is missing at all."""

    is_open: bool = False
    idle: Share = field(default_factory=Share)
    recall: Share = field(default_factory=Share)
    missing: Share = field(default_factory=Share)

    @property
    def is_worth_guessing(self) -> bool:
        """Whether something is missing at all; guesses that are not read tell how good they would have been."""
        return self.missing.value >= LEAST_MISSING

    def took(self, seconds: float, busy_seconds: float) -> None:
        """So long from one layer's experts to the next one's; so long of it with a read that somebody waits for."""
        self.idle.add(max(0.0, seconds - busy_seconds), seconds)
        limit = int(self.is_open)
        self.is_open = (
            self.idle.value >= IDLE_SHARE[limit] and self.recall.value >= RECALL[limit] and self.is_worth_guessing
        )

    def needed(self, experts: Collection[int], guess: Collection[int], num_missing: int) -> None:
        """What a layer needed, what had been guessed of it (empty: no guess was made), how many were not in RAM."""
        self.missing.add(num_missing, len(experts))
        if guess:
            self.recall.add(sum(expert in guess for expert in experts), len(experts))
