"""Whether reading experts before a router asked for them pays. Values in, values out: no reads, no clock."""

from dataclasses import dataclass, field

# Opened at the first and closed below the second, so that noise at the border does not toggle it.
IDLE_SHARE = (0.10, 0.05)  # of the time of a pass in which no read is waited for
LEAST_MISSING = 0.002  # of the experts needed: below, there is nothing to gain
# A guess that is read in idle time is all gain if it is right; if it is wrong, what is under way delays the next demand
# by about as much as a right one of which half was read would have hastened it.
LEAST_PRECISION = 0.5
PLACES = 10  # that a guess in order of confidence is cut into, each with a precision of its own
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
    """Open while the disk idles and something is missing at all; then for the experts whose like came true so far."""

    is_open: bool = False
    idle: Share = field(default_factory=Share)
    missing: Share = field(default_factory=Share)
    precision: tuple[Share, ...] = field(default_factory=lambda: tuple(Share() for _ in range(PLACES)))

    @property
    def is_worth_guessing(self) -> bool:
        """Whether something is missing at all; guesses that are not read tell how good they would have been."""
        return self.missing.value >= LEAST_MISSING

    def admits(self, place: int) -> bool:
        """Whether to read what is guessed with so much confidence: 0 is the surest of PLACES."""
        return self.is_open and self.precision[place].value >= LEAST_PRECISION

    def took(self, seconds: float, busy_seconds: float) -> None:
        """So long from one layer's experts to the next one's; so long of it with a read that somebody waits for."""
        self.idle.add(max(0.0, seconds - busy_seconds), seconds)
        self.is_open = self.idle.value >= IDLE_SHARE[int(self.is_open)] and self.is_worth_guessing

    def needed(self, experts: int, missing: int) -> None:
        """How many experts a layer needed, and how many of them were not in RAM."""
        self.missing.add(missing, experts)

    def guessed(self, place: int, *, is_right: bool) -> None:
        """What became of an expert that was guessed and not in RAM, read or not."""
        self.precision[place].add(is_right, 1)


@dataclass(slots=True)
class Gates:
    """One for decoding, one for prompts: these compute long between their reads, and their guesses are of many rows."""

    decode: Gate = field(default_factory=Gate)
    scan: Gate = field(default_factory=Gate)

    def of(self, *, is_scan: bool) -> Gate:
        """The gate for such a pass."""
        return self.scan if is_scan else self.decode


def place(rank: int, count: int) -> int:
    """Of PLACES, the one of the expert with so many of `count` guessed more surely."""
    return rank * PLACES // count
