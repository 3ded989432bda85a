"""What a prompt costs: seconds for being a prompt at all, and seconds for each of its tokens."""

import math

# What was measured counts half after so many tokens of later prompts. Tokens and not prompts, or a crowd of short ones
# would wipe out what the long ones taught.
HALF_LIFE_TOKENS = 20_000.0
# Lengths that lie closer together than this share of their mean cannot tell the two costs apart.
LEAST_SPREAD = 0.5


class PromptCost:
    """The line seconds = base + tokens / rate through recent prompts, by least squares.

    One rate would not do: a prompt of ten tokens reads nearly as many experts as one of a hundred, so the seconds per
    token of short prompts say nothing of those of long ones, nor the other way round.
    """

    def __init__(self) -> None:
        self._count = self._tokens = self._seconds = 0.0
        self._tokens_squared = self._tokens_by_seconds = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """A prompt of so many tokens took so long. Nothing is learned from none, or from no time."""
        if tokens <= 0 or seconds <= 0:
            return
        kept = 0.5 ** (tokens / HALF_LIFE_TOKENS)
        self._count = self._count * kept + 1
        self._tokens = self._tokens * kept + tokens
        self._seconds = self._seconds * kept + seconds
        self._tokens_squared = self._tokens_squared * kept + tokens**2
        self._tokens_by_seconds = self._tokens_by_seconds * kept + tokens * seconds

    @property
    def tokens_per_second(self) -> float:
        """Of a prompt's tokens beyond its base; 0 before the first measurement."""
        return self._line()[1]

    @property
    def base_seconds(self) -> float:
        """0 also where prompts of one length leave it unknown: their rate holds it then."""
        return self._line()[0]

    def _line(self) -> tuple[float, float]:
        if not self._count:
            return 0.0, 0.0
        mean_tokens, mean_seconds = self._tokens / self._count, self._seconds / self._count
        variance = self._tokens_squared / self._count - mean_tokens**2
        if math.sqrt(max(variance, 0.0)) >= LEAST_SPREAD * mean_tokens:
            slope = (self._tokens_by_seconds / self._count - mean_tokens * mean_seconds) / variance
            base = mean_seconds - slope * mean_tokens
            if slope > 0 and base >= 0:
                return base, 1 / slope
        return 0.0, self._tokens / self._seconds
