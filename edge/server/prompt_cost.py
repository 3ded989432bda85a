"""What a prompt costs: seconds for being a prompt at all, and seconds for each of its tokens."""

import math
from typing import NamedTuple

# What was measured counts half after so many tokens of later prompts. Tokens and not prompts, or a crowd of short ones
# would wipe out what the long ones taught.
HALF_LIFE_TOKENS = 20_000.0
# Lengths that lie closer together than this share of their mean cannot tell the two costs apart.
LEAST_SPREAD = 0.5


class _Sums(NamedTuple):
    """Over recent prompts, each weighed by how much was measured since."""

    weight: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0
    tokens_squared: float = 0.0
    tokens_by_seconds: float = 0.0


class PromptCost:
    """The line seconds = base + tokens / rate through recent prompts, by least squares.

    One rate would not do: a prompt of ten tokens reads nearly as many experts as one of a hundred, so the seconds per
    token of short prompts say nothing of those of long ones, nor the other way round.
    """

    def __init__(self) -> None:
        self._sums = _Sums()

    def add(self, tokens: int, seconds: float) -> None:
        """A prompt of so many tokens took so long. Nothing is learned from none, or from no time."""
        if tokens <= 0 or seconds <= 0:
            return
        kept = 0.5 ** (tokens / HALF_LIFE_TOKENS)
        new = _Sums(1, tokens, seconds, tokens**2, tokens * seconds)
        # At once: metrics are read from another thread.
        self._sums = _Sums(*(before * kept + added for before, added in zip(self._sums, new, strict=True)))

    @property
    def tokens_per_second(self) -> float:
        """Of a prompt's tokens beyond its base; 0 before the first measurement."""
        return self._line()[1]

    @property
    def base_seconds(self) -> float:
        """0 also where prompts of one length leave it unknown: their rate holds it then."""
        return self._line()[0]

    def _line(self) -> tuple[float, float]:
        weight, tokens, seconds, tokens_squared, tokens_by_seconds = self._sums
        if not weight:
            return 0.0, 0.0
        mean_tokens, mean_seconds = tokens / weight, seconds / weight
        variance = tokens_squared / weight - mean_tokens**2
        if math.sqrt(max(variance, 0.0)) >= LEAST_SPREAD * mean_tokens:
            slope = (tokens_by_seconds / weight - mean_tokens * mean_seconds) / variance
            base = mean_seconds - slope * mean_tokens
            if slope > 0 and base >= 0:
                return base, 1 / slope
        return 0.0, tokens / seconds
