"""Whether guessing pays. Values in, values out: no clock, no model; and no answer depends on what it says.

A pass that checks guesses yields more tokens and takes longer: by the guessing, by the rows, and by the experts that
only these rows need. How much is known only by trying. So passes with and without guesses take turns for a while,
under the same conditions, then the better kind has the field until the next trial. Each number of sequences side by
side has its own answer: the more there are, the more of the experts are read anyway.
"""

from dataclasses import dataclass, field

TRIAL_PASSES = 32  # half of them with guesses
# Between trials: first soon, for conditions change at first (a cache fills); then, while the answer stays the same,
# twice as long each time, so that the worse kind costs less and less.
FIRST_REST, LONGEST_REST = 96, 3072
MEMORY = 0.5  # what earlier trials count beside the present one, each again half
LEAST_GAIN = 1.03  # a draw, as far as a trial can tell, is decided for fewer computations


@dataclass(slots=True)
class Yield:
    """Tokens of some passes and the time they took."""

    tokens: float = 0.0
    seconds: float = 0.0
    passes: int = 0  # of the present trial

    def add(self, tokens: int, seconds: float) -> None:
        """One more pass."""
        self.tokens += tokens
        self.seconds += seconds
        self.passes += 1

    def fade(self) -> None:
        """A new trial begins."""
        self.tokens *= MEMORY
        self.seconds *= MEMORY
        self.passes = 0

    @property
    def rate(self) -> float:
        """Tokens per second; 0 before the first pass."""
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class _Side:
    """What is known of passes with one number of sequences."""

    plain: Yield = field(default_factory=Yield)
    drafted: Yield = field(default_factory=Yield)
    is_on: bool = True
    rest: int = FIRST_REST
    resting: int = 0  # passes before the next trial; 0 in one


class CostGate:
    """Asked before each pass, told after it."""

    def __init__(self) -> None:
        self._sides: dict[int, _Side] = {}

    def wants(self, num_sequences: int) -> bool:
        """Whether so many sequences should have guesses checked in their next pass."""
        side = self._side(num_sequences)
        return side.is_on if side.resting else side.drafted.passes <= side.plain.passes

    def took(self, num_sequences: int, tokens: int, seconds: float, *, is_drafted: bool) -> None:
        """A pass that did nothing but decode yielded so many tokens, guesses that were right among them."""
        side = self._side(num_sequences)
        if side.resting:
            side.resting -= 1
            if not side.resting:
                side.plain.fade()
                side.drafted.fade()
            return
        (side.drafted if is_drafted else side.plain).add(tokens, seconds)
        if min(side.drafted.passes, side.plain.passes) >= TRIAL_PASSES // 2:
            was_on, side.is_on = side.is_on, side.drafted.rate > LEAST_GAIN * side.plain.rate
            side.rest = min(2 * side.rest, LONGEST_REST) if side.is_on == was_on else FIRST_REST
            side.resting = side.rest

    def _side(self, num_sequences: int) -> _Side:
        return self._sides.setdefault(num_sequences, _Side())
